//! Chooses the server of a backend that is asked.
//!
//! Owns the order of the reasons: a cookie that names a server which may be asked; else the method's choice among those
//! that may be asked, as if the others were not there. Never opens a socket, reads a clock, or waits for another core.
//! Truth across cores: whose turn it is, each core for itself; who may be asked, and the weights of `drr`, all cores
//! together; how busy servers are, own exchanges exactly and others' as of a moment ago.
//! Read next: `round_robin.rs`, then the file of each method.

use std::net::IpAddr;
use std::sync::Arc;

use super::ServerId;
use super::availability::{Availability, Changes};
use super::load::{Loads, UnderWay};
use super::rebalance::Rebalancer;
use super::ring::{HashBy, Ring};
use super::shard::Shard;
use super::sticky::Sticky;
use crate::http::Head;

/// How the next server is chosen, where no cookie has.
#[derive(Clone, Debug)]
pub enum Method {
    /// `wrr`.
    RoundRobin,
    /// `drr`.
    Rebalanced(Arc<Rebalancer>),
    /// `leastconn`.
    LeastConnections(Loads),
    /// `p2c`.
    TwoChoices(Loads),
    /// `hash`.
    Hash(Box<Hash>),
}

/// The method `hash`.
#[derive(Clone, Debug)]
pub struct Hash {
    pub by: HashBy,
    pub ring: Arc<Ring>,
    pub bound: Option<Bound>,
}

/// No server bears more than its share by so much.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Of the share; more than 100.
    pub percent: u32,
    pub loads: Loads,
}

/// What a choice may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub request: &'a Head,
    /// The peer's address.
    pub client: IpAddr,
    /// In nanoseconds, on a clock that all cores share.
    pub now: u64,
}

/// A server that is asked for a request.
#[derive(Debug)]
pub struct Choice<'a> {
    pub id: ServerId,
    /// What `Set-Cookie` tells the client, where it did not know its server yet.
    pub cookie: Option<&'a [u8]>,
    /// Counts the exchange for as long as this lives, where the method wants to know.
    _under_way: Option<UnderWay<'a>>,
}

/// Why no server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoServer {
    /// The backend has no servers, or none that may be asked: answer 503.
    Empty,
    /// Every server has weight 0: answer 500.
    AllZero,
}

/// The policy of a backend, on one core.
#[derive(Clone, Debug)]
pub struct Balancer {
    pub method: Method,
    /// Of the servers, as configured.
    pub weights: Box<[u32]>,
    /// Of the servers.
    pub availability: Box<[Arc<Availability>]>,
    /// Of the availability and, for `drr`, of the weights.
    pub changes: Arc<Changes>,
    /// A server that comes back gets its whole weight only after so many nanoseconds.
    pub slow_start: Option<u64>,
    pub sticky: Option<Sticky>,
    /// This core's part of the state that outlives a reload.
    pub shard: Arc<Shard>,
}

impl Method {
    /// What is under way at each server, where that counts.
    pub fn loads(&self) -> Option<&Loads> {
        match self {
            Self::RoundRobin | Self::Rebalanced(_) => None,
            Self::LeastConnections(loads) | Self::TwoChoices(loads) => Some(loads),
            Self::Hash(hash) => hash.bound.as_ref().map(|bound| &bound.loads),
        }
    }
}

impl Balancer {
    /// The server that is asked. For another try of the same request it is one that was not `tried` yet, while there is
    /// such a one, whatever the cookie says.
    ///
    /// # Errors
    /// There is nobody to ask: see [`NoServer`].
    #[inline]
    pub fn choose(&self, ask: &Ask<'_>, tried: &[ServerId]) -> Result<Choice<'_>, NoServer> {
        let changes = self.changes.count();
        if self.shard.is_older_than(changes, ask.now) {
            self.renew(changes, ask.now);
        }
        if let Some(sticky) = &self.sticky
            && tried.is_empty()
            && let Some(id) = sticky.pinned(ask.request)
            && self.availability[id.0 as usize].is_available()
        {
            return Ok(self.choice(id, None));
        }
        let id = match tried {
            [] => self.pick(ask),
            _ => self.pick_except(ask, tried).or_else(|| self.pick(ask)),
        };
        let id = id.ok_or_else(|| self.nobody())?;
        let cookie = self.sticky.as_ref().map(|sticky| sticky.cookie(id));
        Ok(self.choice(id, cookie))
    }

    /// A server has answered, or its answer could not be had: then with the status that stands for it. The time, as in
    /// [`Ask`], is asked for only where it matters.
    #[inline]
    pub fn answered(&self, id: ServerId, status: u16, now: impl FnOnce() -> u64) {
        let Method::Rebalanced(rebalancer) = &self.method else {
            return;
        };
        let now = now();
        if rebalancer.record(self.shard.core, id, status, now)
            && rebalancer.rebalance(|at| self.availability[at].is_available(), now)
        {
            self.changes.add();
        }
    }

    #[inline]
    fn choice<'a>(&'a self, id: ServerId, cookie: Option<&'a [u8]>) -> Choice<'a> {
        let Shard { core, tally, .. } = &*self.shard;
        let loads = self.method.loads();
        Choice {
            id,
            cookie,
            _under_way: loads.map(|loads| UnderWay::new(loads, tally, *core, id)),
        }
    }

    #[inline]
    fn pick(&self, ask: &Ask<'_>) -> Option<ServerId> {
        let Shard { turns, tally, .. } = &*self.shard;
        match &self.method {
            Method::RoundRobin | Method::Rebalanced(_) => turns.next(),
            Method::LeastConnections(loads) => {
                tally.look(loads, ask.now);
                tally.least()
            }
            Method::TwoChoices(loads) => {
                tally.look(loads, ask.now);
                tally.less_of_two()
            }
            Method::Hash(hash) => self.hashed(hash, ask, &[]).or_else(|| turns.next()),
        }
    }

    fn pick_except(&self, ask: &Ask<'_>, tried: &[ServerId]) -> Option<ServerId> {
        let Shard { turns, tally, .. } = &*self.shard;
        match &self.method {
            Method::RoundRobin | Method::Rebalanced(_) => turns.next_except(tried),
            Method::LeastConnections(_) | Method::TwoChoices(_) => tally.least_except(tried),
            Method::Hash(hash) => self
                .hashed(hash, ask, tried)
                .or_else(|| turns.next_except(tried)),
        }
    }

    /// The server that a request belongs to, or the next on the ring that may be asked and has room.
    fn hashed(&self, hash: &Hash, ask: &Ask<'_>, tried: &[ServerId]) -> Option<ServerId> {
        let Shard { turns, tally, .. } = &*self.shard;
        let place = hash.by.place(ask.request, ask.client)?;
        if let Some(bound) = &hash.bound {
            tally.look(&bound.loads, ask.now);
        }
        hash.ring.find(place, |id| {
            let weight = turns.weight(id);
            let has_room = |bound: &Bound| tally.has_room(id, weight, bound.percent);
            weight > 0 && !tried.contains(&id) && hash.bound.as_ref().is_none_or(has_room)
        })
    }

    /// Takes in what has changed since the last choice.
    #[cold]
    fn renew(&self, changes: u32, now: u64) {
        let shard = &*self.shard;
        let is_available = |at: usize| self.availability[at].is_available();
        let length = self.slow_start.unwrap_or_default();
        let is_ramping = shard.ramp.note(is_available, length, now);
        let weights = self.weights.iter().enumerate().map(|(at, weight)| {
            let weight = match &self.method {
                Method::Rebalanced(rebalancer) => rebalancer.weight(at),
                _ => *weight,
            };
            match is_available(at) {
                false => 0,
                true if is_ramping => weight.saturating_mul(shard.ramp.parts(at, length, now)),
                true => weight,
            }
        });
        shard.restart(changes, weights);
    }

    #[cold]
    fn nobody(&self) -> NoServer {
        if self.availability.iter().any(|server| server.is_available()) {
            NoServer::AllZero
        } else {
            NoServer::Empty
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::availability::Why;
    use crate::backend::key::Source;
    use crate::backend::load::Load;
    use crate::backend::rebalance::Meter;
    use crate::http::FieldId;

    const SECOND: u64 = 1_000_000_000;

    fn loads(servers: usize, cores: usize) -> Loads {
        (0..servers).map(|_| Arc::new(Load::new(cores))).collect()
    }

    fn balancer(weights: &[u32], method: Method) -> Balancer {
        let changes = Arc::<Changes>::default();
        Balancer {
            availability: weights
                .iter()
                .map(|_| Arc::new(Availability::new(Arc::clone(&changes))))
                .collect(),
            weights: weights.into(),
            changes,
            slow_start: None,
            sticky: None,
            shard: Arc::new(Shard::new(0, weights.len(), true, false)),
            method,
        }
    }

    fn rebalanced(weights: &[u32]) -> (Balancer, Arc<Rebalancer>) {
        let meters = weights.iter().map(|_| Arc::new(Meter::new(1))).collect();
        let rebalancer = Arc::new(Rebalancer::new(weights.into(), meters));
        let method = Method::Rebalanced(Arc::clone(&rebalancer));
        (balancer(weights, method), rebalancer)
    }

    fn hash(weights: &[u32], percent: Option<u32>) -> Balancer {
        let servers: Vec<_> = (0..)
            .map(|at| format!("http://{at}:80"))
            .zip(weights.iter().copied())
            .collect();
        let hash = Hash {
            by: HashBy::Source(Source::Field(b"x-key".as_slice().into())),
            ring: Arc::new(Ring::new(&servers)),
            bound: percent.map(|percent| Bound {
                percent,
                loads: loads(weights.len(), 1),
            }),
        };
        balancer(weights, Method::Hash(Box::new(hash)))
    }

    fn choose_at<'a>(
        balancer: &'a Balancer,
        head: &Head,
        tried: &[ServerId],
        now: u64,
    ) -> Result<Choice<'a>, NoServer> {
        let ask = Ask {
            request: head,
            client: [127, 0, 0, 1].into(),
            now,
        };
        balancer.choose(&ask, tried)
    }

    fn choose<'a>(balancer: &'a Balancer, tried: &[u32]) -> Result<Choice<'a>, NoServer> {
        let tried: Vec<_> = tried.iter().copied().map(ServerId).collect();
        choose_at(balancer, &Head::default(), &tried, 0)
    }

    fn name(id: ServerId) -> char {
        char::from(b'A' + u8::try_from(id.0).expect("few"))
    }

    /// The next choices, each over at once; `.` is nobody.
    fn picks_at(balancer: &Balancer, count: usize, now: u64) -> String {
        let head = Head::default();
        (0..count)
            .map(|_| choose_at(balancer, &head, &[], now).map_or('.', |choice| name(choice.id)))
            .collect()
    }

    fn picks(balancer: &Balancer, count: usize) -> String {
        picks_at(balancer, count, 0)
    }

    #[test]
    fn a_server_that_is_away_is_as_if_it_were_not_there() {
        let balancer = balancer(&[3, 2, 1], Method::RoundRobin);
        let availability = &balancer.availability;
        assert_eq!(picks(&balancer, 8), "AABABCAA");
        availability[1].rule_out(Why::Unhealthy);
        assert_eq!(picks(&balancer, 8), "AAACAAAC");
        assert_eq!(choose(&balancer, &[0]).expect("C").id, ServerId(2));
        availability[0].rule_out(Why::Ejected);
        assert_eq!(picks(&balancer, 2), "CC");
        let again = choose(&balancer, &[2]).expect("better than nobody");
        assert_eq!(again.id, ServerId(2));
        availability[2].rule_out(Why::Unhealthy);
        assert_eq!(choose(&balancer, &[]).err(), Some(NoServer::Empty));
        for server in availability {
            server.readmit(Why::Unhealthy);
            server.readmit(Why::Ejected);
        }
        assert_eq!(picks(&balancer, 6), "AABABC", "with its weight");
    }

    #[test]
    fn no_server_and_no_weight_are_not_the_same() {
        let methods = || {
            [
                Method::RoundRobin,
                Method::LeastConnections(loads(2, 1)),
                Method::TwoChoices(loads(2, 1)),
                rebalanced(&[0, 0]).0.method,
                hash(&[0, 0], None).method,
                hash(&[0, 0], Some(125)).method,
            ]
        };
        for method in methods() {
            let zero = balancer(&[0, 0], method);
            let nobody = || choose(&zero, &[]).err();
            assert_eq!(nobody(), Some(NoServer::AllZero), "{:?}", zero.method);
            zero.availability[0].rule_out(Why::Unhealthy);
            assert_eq!(nobody(), Some(NoServer::AllZero));
            zero.availability[1].rule_out(Why::Unhealthy);
            assert_eq!(nobody(), Some(NoServer::Empty));
        }
        let none = balancer(&[], Method::RoundRobin);
        assert_eq!(choose(&none, &[]).err(), Some(NoServer::Empty));
    }

    #[test]
    fn a_cookie_chooses_among_those_that_may_be_asked() {
        let mut balancer = balancer(&[1, 1, 0], Method::RoundRobin);
        let values = ["http://a", "http://b", "http://c"].map(str::to_owned);
        balancer.sticky = Some(Sticky::new("s", &values, ""));
        let check = |cookie: &str, tried: &[ServerId], expected: &str| {
            let mut head = Head::default();
            head.push_known(FieldId::Cookie, cookie.as_bytes());
            let said = match choose_at(&balancer, &head, tried, 0) {
                Ok(choice) => {
                    let cookie = String::from_utf8_lossy(choice.cookie.unwrap_or_default());
                    format!("{} {cookie}", choice.id.0)
                }
                Err(error) => format!("{error:?}"),
            };
            assert_eq!(said, expected, "{cookie} {tried:?}");
        };
        check("", &[], "0 s=http://a");
        check("s=http://a", &[], "0 ");
        check("s=http://a", &[], "0 ");
        check("s=http://c", &[], "2 ");
        check("s=http://d", &[], "1 s=http://b");
        check("s=http://a", &[ServerId(0)], "1 s=http://b");
        check("s=http://a", &[ServerId(0), ServerId(1)], "0 s=http://a");
        let away = &balancer.availability[1];
        away.rule_out(Why::Unhealthy);
        check("s=http://b", &[], "0 s=http://a");
        away.readmit(Why::Unhealthy);
        check("s=http://b", &[], "1 ");
        for server in &balancer.availability {
            server.rule_out(Why::Unhealthy);
        }
        check("s=http://b", &[], "Empty");
    }

    /// 19 requests a second, in these seconds. `fails` says which servers do.
    fn traffic(
        balancer: &Balancer,
        seconds: std::ops::Range<u64>,
        fails: impl Fn(ServerId) -> bool,
        mut seen: impl FnMut(u64),
    ) {
        let head = Head::default();
        for request in seconds.start * 19..seconds.end * 19 {
            let now = request * SECOND / 19;
            let choice = choose_at(balancer, &head, &[], now).expect("a server");
            let status = if fails(choice.id) { 500 } else { 200 };
            balancer.answered(choice.id, status, || now);
            seen(now);
        }
    }

    /// The weights in force, each time they change, with the second: `9 1:4`.
    fn timeline(weights: &[u32], parts: &[(std::ops::Range<u64>, Option<u32>)]) -> Vec<String> {
        let (balancer, rebalancer) = rebalanced(weights);
        let mut told = Vec::<String>::new();
        for (seconds, bad) in parts {
            traffic(
                &balancer,
                seconds.clone(),
                |id| Some(id.0) == *bad,
                |now| {
                    let weights: Vec<_> = (0..weights.len())
                        .map(|at| rebalancer.weight(at).to_string())
                        .collect();
                    let weights = weights.join(":");
                    if told
                        .last()
                        .is_none_or(|last| !last.ends_with(&format!(" {weights}")))
                    {
                        told.push(format!("{} {weights}", now / SECOND));
                    }
                },
            );
        }
        told
    }

    #[test]
    fn the_timeline_of_the_reference() {
        assert_eq!(
            timeline(&[1, 1], &[(0..40, Some(0))]),
            ["0 1:1", "9 1:4", "19 1:16", "29 1:64", "39 1:256"]
        );
    }

    #[test]
    fn weights_come_back_when_a_server_has_recovered() {
        assert_eq!(
            timeline(&[2, 1], &[(0..25, Some(0)), (25..100, None)]),
            ["0 2:1", "9 1:2", "19 1:8", "29 1:32", "39 1:4", "49 2:1"],
            "what is older than the window is forgotten, also where few requests come"
        );
    }

    #[test]
    fn servers_that_fail_alike_keep_their_weights() {
        let (balancer, rebalancer) = rebalanced(&[3, 1]);
        traffic(&balancer, 0..40, |_| true, |_| {});
        assert_eq!((rebalancer.weight(0), rebalancer.weight(1)), (3, 1));
    }

    #[test]
    fn a_server_that_comes_back_has_its_weight_and_does_not_hold_up_the_others() {
        let (balancer, rebalancer) = rebalanced(&[2, 1, 0]);
        let weights = || [0, 1, 2].map(|at| rebalancer.weight(at));
        traffic(&balancer, 0..25, |id| id.0 == 0, |_| {});
        assert_eq!(weights(), [1, 8, 0]);
        balancer.availability[0].rule_out(Why::Unhealthy);
        traffic(&balancer, 25..41, |_| false, |_| {});
        assert_eq!(picks_at(&balancer, 3, 41 * SECOND), "BBB");
        balancer.availability[0].readmit(Why::Unhealthy);
        traffic(&balancer, 41..42, |_| false, |_| {});
        assert_eq!(weights(), [2, 1, 0]);
        traffic(&balancer, 42..43, |id| id.0 == 0, |_| {});
        assert_ne!(weights(), [2, 1, 0], "it is known, and judged at once");
    }

    #[test]
    fn the_least_busy_for_its_weight() {
        let balancer = balancer(&[1, 1, 2, 0], Method::LeastConnections(loads(4, 1)));
        let mut under_way = Vec::new();
        let mut order = String::new();
        for _ in 0..8 {
            let choice = choose(&balancer, &[]).expect("a server");
            order.push(name(choice.id));
            under_way.push(choice);
        }
        assert_eq!(order, "CABCCABC");
        under_way.retain(|choice| choice.id != ServerId(1));
        assert_eq!(picks(&balancer, 3), "BBB");
        assert_eq!(choose(&balancer, &[1]).expect("C").id, ServerId(2));
        assert_eq!(choose(&balancer, &[0, 1, 2]).expect("any").id, ServerId(1));
    }

    #[test]
    fn idle_servers_take_turns() {
        let balancer = balancer(&[1, 1, 1], Method::LeastConnections(loads(3, 1)));
        assert_eq!(picks(&balancer, 6), "ABCABC");
        balancer.availability[1].rule_out(Why::Ejected);
        assert_eq!(picks(&balancer, 4), "ACAC");
    }

    #[test]
    fn what_other_cores_do_is_known_a_moment_later() {
        let loads = loads(2, 2);
        let mut first = balancer(&[1, 1], Method::LeastConnections(loads.clone()));
        let mut second = balancer(&[1, 1], Method::LeastConnections(loads));
        first.shard = Arc::new(Shard::new(0, 2, true, false));
        second.shard = Arc::new(Shard::new(1, 2, true, false));
        let head = Head::default();
        assert_eq!(picks(&second, 2), "BA");
        let _busy: Vec<_> = (0..3)
            .map(|_| choose_at(&first, &head, &[ServerId(1)], 0).expect("A"))
            .collect();
        assert_eq!(picks_at(&second, 2, 0), "BA", "not yet");
        assert_eq!(picks_at(&second, 2, SECOND), "BB");
    }

    #[test]
    fn a_reload_forgets_no_exchange() {
        let loads = loads(2, 1);
        let before = balancer(&[1, 1], Method::LeastConnections(loads.clone()));
        let busy = [
            choose(&before, &[1]).expect("A"),
            choose(&before, &[1]).expect("A"),
        ];
        let after = balancer(&[1, 1], Method::LeastConnections(loads));
        assert_eq!(picks(&after, 3), "BBB");
        drop(busy);
        assert_eq!(picks_at(&after, 4, SECOND), "ABAB");
    }

    #[test]
    fn the_less_busy_of_two() {
        let balancer = balancer(&[1, 1, 1, 0], Method::TwoChoices(loads(4, 1)));
        let order = picks(&balancer, 3_000);
        for server in ['A', 'B', 'C'] {
            let count = order.matches(server).count();
            assert!((900..1_100).contains(&count), "{server}: {count}");
        }
        let busy = choose(&balancer, &[1, 2]).expect("A");
        assert_eq!(busy.id, ServerId(0));
        assert!(!picks(&balancer, 100).contains('A'), "never the busier one");
        balancer.availability[1].rule_out(Why::Unhealthy);
        balancer.availability[2].rule_out(Why::Unhealthy);
        assert_eq!(picks(&balancer, 2), "AA");
    }

    fn with_key(key: usize) -> Head {
        let mut head = Head::default();
        head.push(b"x-key", format!("key-{key}").as_bytes());
        head
    }

    /// Where each of a thousand keys belongs.
    fn homes(balancer: &Balancer) -> Vec<u32> {
        (0..1_000)
            .map(|key| {
                choose_at(balancer, &with_key(key), &[], 0)
                    .expect("a server")
                    .id
                    .0
            })
            .collect()
    }

    #[test]
    fn a_key_has_its_server() {
        let balancer = hash(&[1, 1, 1, 1, 4], None);
        let before = homes(&balancer);
        for server in 0..5 {
            let count = before.iter().filter(|home| **home == server).count();
            let expected = if server == 4 { 400..600 } else { 85..165 };
            assert!(expected.contains(&count), "{server}: {count}");
        }
        assert_eq!(homes(&balancer), before);
        balancer.availability[2].rule_out(Why::Unhealthy);
        let without = homes(&balancer);
        for (before, without) in before.iter().zip(&without) {
            assert!(*without != 2 && (*before == 2 || before == without));
        }
        assert!(
            (0..5).all(|server| server == 2
                || before
                    .iter()
                    .zip(&without)
                    .any(|(before, home)| *before == 2 && *home == server)),
            "its keys are spread over all others"
        );
        balancer.availability[2].readmit(Why::Unhealthy);
        assert_eq!(homes(&balancer), before);
        let tried = choose_at(&balancer, &with_key(0), &[ServerId(before[0])], 0).expect("another");
        assert_ne!(tried.id.0, before[0]);
        assert_eq!(picks(&balancer, 5), "EEEAB", "without a key, by turns");
    }

    #[test]
    fn a_new_server_takes_only_its_own_keys() {
        let before = homes(&hash(&[1, 1, 1], None));
        let after = homes(&hash(&[1, 1, 1, 1], None));
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after);
        assert!(moved.clone().all(|(_, after)| *after == 3));
        assert!((170..330).contains(&moved.count()));
    }

    #[test]
    fn no_server_bears_more_than_its_bound() {
        let balancer = hash(&[1, 1, 1, 1], Some(125));
        let head = with_key(7);
        let mut under_way = Vec::new();
        let mut counts = [0_u32; 4];
        for total in 1..=100_u32 {
            let choice = choose_at(&balancer, &head, &[], 0).expect("a server");
            counts[choice.id.0 as usize] += 1;
            under_way.push(choice);
            let bound = (f64::from(total) / 4.0 * 1.25).ceil();
            assert!(
                counts.iter().all(|count| f64::from(*count) <= bound),
                "{counts:?}"
            );
        }
        let home = under_way[0].id;
        assert_eq!(counts[home.0 as usize], 32, "{counts:?}");
        under_way.clear();
        assert_eq!(choose_at(&balancer, &head, &[], 0).expect("home").id, home);
    }

    #[test]
    fn a_server_that_comes_back_gets_its_weight_by_and_by() {
        let mut balancer = balancer(&[1, 1], Method::RoundRobin);
        balancer.slow_start = Some(10 * SECOND);
        balancer.shard = Arc::new(Shard::new(0, 2, false, true));
        let share = |seconds: u64| {
            let order = picks_at(&balancer, 110, seconds * SECOND);
            order.matches('A').count()
        };
        assert_eq!(share(0), 55, "who was there from the beginning has it all");
        balancer.availability[0].rule_out(Why::Unhealthy);
        assert_eq!(share(5), 0);
        balancer.availability[0].readmit(Why::Unhealthy);
        assert_eq!(share(100), 10, "one part of eleven");
        assert_eq!(share(104), 110 * 5 / 15 + 1);
        assert_eq!(share(109), 55);
        assert_eq!(picks_at(&balancer, 4, 200 * SECOND), "ABAB");
    }
}
