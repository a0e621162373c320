//! The page coreway(8) of the manual, made from the commands and the option table.
//!
//! Never prints: it returns troff. Read next: `help.rs`.

use super::help::{self, COMMANDS, SWITCHES};
use super::{flags, version, words};

/// The page.
pub fn page() -> String {
    let mut page = format!(
        ".TH COREWAY 8 \"\" \"Coreway {}\" \"System Administration\"\n\
         .SH NAME\ncoreway \\- edge reverse proxy and load balancer\n\
         .SH SYNOPSIS\n.B coreway\n[flags] <command> [<arguments>]\n\
         .SH DESCRIPTION\nCoreway takes the configuration of Traefik 1.7: a file, flags, key-value stores.\n\
         Without a command it serves. Flags are\n.BI \\-\\-name= value\nin any case; each is an option of the configuration file.\n\
         .SH COMMANDS\n",
        text(version::VERSION)
    );
    for (name, command, about) in COMMANDS {
        page += &format!(
            ".TP\n.B {} {}\n{}.\n",
            text(name),
            text(words::usage(command)),
            text(about)
        );
        for (_, switch, _, about) in SWITCHES.iter().filter(|(of, ..)| of == name) {
            page += &format!(".RS\n.TP\n.B {}\n{}.\n.RE\n", text(switch), text(about));
        }
    }
    page += ".SH OPTIONS\n";
    for flag in flags::all() {
        let (name, about, default) = help::line(flag);
        page += &format!(
            ".TP\n.B \\-\\-{}\n{}{}\n",
            text(&name),
            text(&about),
            text(&default)
        );
    }
    page += ".SH FILES\n.TP\n.I /etc/coreway/coreway.toml, /etc/traefik/traefik.toml\nThe first of the places that\n\
             .B coreway \\-\\-help\nnames.\n\
             .SH EXIT STATUS\n0 after a stop that was asked for, 1 for anything else.\n\
             .SH SIGNALS\n.TP\n.B SIGTERM, SIGINT\nStops: what is under way is finished first. A second one cuts it.\n\
             .TP\n.B SIGUSR1\nOpens the log files again.\n.TP\n.B SIGHUP\nReads the rules again.\n";
    page
}

/// Plain text for troff: nothing in it is a request or an escape.
fn text(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = text
        .lines()
        .map(|line| match line.starts_with(['.', '\'']) {
            true => format!("\\&{line}"),
            false => line.to_owned(),
        });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_option_has_an_entry() {
        let page = page();
        for (name, ..) in COMMANDS {
            assert!(page.contains(&format!("\n.B {name} ")), "{name}");
        }
        for flag in flags::all() {
            let entry = format!("\n.B \\-\\-{}\n", text(&flag.name));
            assert!(page.contains(&entry), "{}", flag.name);
        }
        assert_eq!(text(".a-\\b"), "\\&.a\\-\\eb");
        assert_eq!(text("'x'"), "\\&'x'");
    }
}
