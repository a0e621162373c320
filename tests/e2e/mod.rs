//! A file for each thing an operator knows. Every test starts the real program and talks to it over real sockets.

mod allocations;
mod balancing;
mod bodies;
mod client_gone;
mod demo;
mod drain;
mod exhaustion;
mod flags;
mod forwarding;
mod framing;
mod garbage;
mod headers;
mod idle;
mod keepalive;
mod limits;
mod proxy_protocol;
mod reactor_sockets;
mod redirect;
mod reload;
mod routing;
mod sticky;
mod timeouts;
mod tls;
mod tls_servers;
mod upgrade;
mod white_list;
