//! `--help`, made from the option table. Spec static-config 1.4.
//!
//! Owns the commands and what is said about them. Never prints: it returns text. Read next: `load.rs`.

use super::flags::{self, Flag, SHORT};
use super::load::{Command, StoreConfig};
use super::option::Kind;
use super::words::{self, Question, Shell};

/// The commands, and what each does.
pub(super) const COMMANDS: &[(&str, Command, &str)] = &[
    ("version", Command::Version, "Print version"),
    (
        "healthcheck",
        Command::HealthCheck,
        "Call /ping of a running server: exit code 0 if it answers, else 1",
    ),
    (
        "storeconfig",
        Command::StoreConfig(StoreConfig::Write),
        "Write the static configuration into the key-value store",
    ),
    (
        "bug",
        Command::Bug,
        "Print a template for a bug report, with the configuration made anonymous",
    ),
    (
        "check",
        Command::Check,
        "Read everything and say what is wrong with it: exit code 1 if something is left out",
    ),
    (
        "explain",
        Command::Explain(Question {
            method: String::new(),
            url: String::new(),
            fields: Vec::new(),
        }),
        "Say what would become of a request, and why",
    ),
    (
        "completion",
        Command::Completion(Shell::Bash),
        "Print what a shell needs to complete commands and flags",
    ),
    ("man", Command::Man, "Print the manual page"),
    (
        "demo",
        Command::Demo,
        "Run with two built-in servers, to try things out",
    ),
];

/// Switches that only one command has, and what it then does.
pub(super) const SWITCHES: &[(&str, &str, Command, &str)] = &[
    (
        "storeconfig",
        "--dry-run",
        Command::StoreConfig(StoreConfig::DryRun),
        "Print the keys and write nothing",
    ),
    (
        "storeconfig",
        "--diff",
        Command::StoreConfig(StoreConfig::Diff),
        "Print what is different in the store and write nothing",
    ),
];

/// What `command` becomes by `argument`, if that is a switch of its own.
pub(super) fn switched(command: &Command, argument: &str) -> Option<Command> {
    let name = COMMANDS
        .iter()
        .find(|(_, known, _)| std::mem::discriminant(known) == std::mem::discriminant(command))?;
    let mut switches = SWITCHES.iter();
    let found = switches.find(|(of, switch, ..)| *of == name.0 && *switch == argument)?;
    Some(found.2.clone())
}

/// Help of the whole program.
pub(super) fn program() -> String {
    let mut text = "coreway is an edge reverse proxy and load balancer that takes Traefik 1.7's configuration.\n\
                    Complete documentation is in docs/configuration.md\n\n\
                    Usage: coreway [flags] <command> [<arguments>]\n\n\
                    Use \"coreway <command> --help\" for help on a command.\n\n\
                    Commands:\n"
        .to_owned();
    for (name, _, about) in COMMANDS {
        text.push_str(&format!("    {name:<44}{about}\n"));
    }
    text.push_str(&flag_lines());
    text
}

/// Help of one command.
pub(super) fn command(name: &str, command: &Command, about: &str) -> String {
    let usage = words::usage(command);
    let mut text = format!(
        "{about}\n\nUsage: coreway {}\n",
        format!("{name} {usage}").trim_end()
    );
    if matches!(
        command,
        Command::Version | Command::Completion(_) | Command::Man
    ) {
        text.push_str(
            "\nFlags:\n    -h, --help                                  Print help and exit\n",
        );
    } else {
        let own = SWITCHES.iter().filter(|(of, ..)| *of == name);
        let own: String = own
            .map(|(_, switch, _, about)| format!("    {switch:<44}{about}\n"))
            .collect();
        if !own.is_empty() {
            text.push_str(&format!("\nOf this command:\n{own}"));
        }
        text.push_str(&flag_lines());
    }
    text
}

fn flag_lines() -> String {
    let own = |name: &str, about: &'static str| (name.to_owned(), about.to_owned(), String::new());
    let mut lines = vec![
        own("configfile", "File or folder of the static configuration"),
        own("help", "Print help and exit"),
    ];
    lines.extend(flags::all().into_iter().map(line));
    lines.sort();
    let mut text = "\nFlags:\n".to_owned();
    for (name, about, default) in lines {
        let short = SHORT.iter().find(|(_, long)| *long == name);
        let short = short.map_or_else(|| "    ".to_owned(), |(letter, _)| format!("-{letter}, "));
        text.push_str(&format!(
            "{}\n",
            format!("    {short}--{name:<38} {about}{default}").trim_end()
        ));
    }
    text
}

pub(super) fn line(flag: Flag) -> (String, String, String) {
    let about = flag.about.trim().replace('`', "'");
    let default = match flag.kind {
        Kind::Section(_) | Kind::Foreign if flag.default.is_empty() => "off",
        _ => flag.default.as_str(),
    };
    (flag.name, about, format!(" (default \"{default}\")"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_has_a_line_for_every_flag_sorted_by_name() {
        let help = program();
        let flags: Vec<&str> = help
            .lines()
            .filter_map(|line| line.split_once("--")?.1.split(' ').next())
            .skip(1)
            .collect();
        assert!(flags.is_sorted());
        for flag in flags::all() {
            assert!(flags.contains(&flag.name.as_str()), "{}", flag.name);
        }
        let line = |name: &str| {
            help.lines()
                .find(|line| line.contains(&format!("--{name} ")))
                .expect("a line")
        };
        assert_eq!(
            line("loglevel"),
            "    -l, --loglevel                               'debug', 'info', 'warn', 'error', 'fatal' or 'panic'. \
             Empty: ERROR, or DEBUG with 'debug'. (default \"\")"
        );
        assert!(line("api").ends_with("(default \"off\")"));
        assert!(line("api.dashboard").ends_with("(default \"true\")"));
        assert!(line("respondingtimeouts.idletimeout").ends_with("(default \"180s\")"));
        assert!(help.contains("\nUsage: coreway [flags] <command> [<arguments>]\n"));
    }
}
