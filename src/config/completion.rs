//! Completion for shells, made from the commands and the option table.
//!
//! Never prints: it returns scripts. Read next: `help.rs`.

use super::flags::{self, Flag};
use super::help::{COMMANDS, SWITCHES};
use super::option::Kind;
use super::words::Shell;

/// The script that a shell reads.
pub fn script(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => zsh(),
        Shell::Fish => fish(),
    }
}

/// A flag as a shell offers it.
struct Offer {
    /// Without the dashes.
    name: String,
    about: String,
    takes_value: bool,
}

/// Every flag, those that are no options included, by name.
fn offers() -> Vec<Offer> {
    let offer = |flag: Flag| Offer {
        about: sentence(flag.about),
        takes_value: !matches!(flag.kind, Kind::Bool | Kind::Section(_) | Kind::Foreign),
        name: flag.name,
    };
    let own = |name: &str, about: &str, takes_value| Offer {
        name: name.to_owned(),
        about: about.to_owned(),
        takes_value,
    };
    let mut offers: Vec<Offer> = flags::all().into_iter().map(offer).collect();
    offers.push(own(
        "configfile",
        "File or folder of the static configuration",
        true,
    ));
    offers.push(own("help", "Print help and exit", false));
    offers.sort_by(|a, b| a.name.cmp(&b.name));
    offers
}

/// The first sentence, plain.
fn sentence(about: &str) -> String {
    let about = about.trim().replace('`', "'");
    let first = about
        .split_once(". ")
        .map_or(about.as_str(), |(first, _)| first);
    first.trim_end_matches('.').to_owned()
}

/// The switches of all commands: command, switch, what it does.
fn switches() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    SWITCHES
        .iter()
        .map(|(command, switch, _, about)| (*command, *switch, *about))
}

fn bash() -> String {
    let commands: Vec<&str> = COMMANDS.iter().map(|(name, ..)| *name).collect();
    let flags: Vec<String> = offers()
        .iter()
        .map(|offer| {
            format!(
                "--{}{}",
                offer.name,
                if offer.takes_value { "=" } else { "" }
            )
        })
        .collect();
    let switches: String = switches()
        .map(|(command, switch, _)| {
            format!("    [[ ${{COMP_WORDS[1]}} == {command} ]] && flags+=\" {switch}\"\n")
        })
        .collect();
    format!(
        "# bash completion for coreway\n\
         _coreway() {{\n    local current=${{COMP_WORDS[COMP_CWORD]}} flags=\"{}\"\n{switches}    COMPREPLY=()\n\
         \x20   if [[ $current == -* ]]; then\n        COMPREPLY=( $(compgen -W \"$flags\" -- \"$current\") )\n\
         \x20       [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace 2>/dev/null\n\
         \x20   elif [[ $COMP_CWORD -eq 1 ]]; then\n        COMPREPLY=( $(compgen -W \"{}\" -- \"$current\") )\n\
         \x20   elif [[ ${{COMP_WORDS[1]}} == completion ]]; then\n        COMPREPLY=( $(compgen -W \"bash zsh fish\" -- \"$current\") )\n\
         \x20   fi\n    return 0\n}}\ncomplete -o bashdefault -o default -F _coreway coreway\n",
        flags.join(" "),
        commands.join(" "),
    )
}

fn zsh() -> String {
    // In a description of `_arguments` these have a meaning, and the quote ends the word.
    let plain = |text: &str| {
        let text = text.replace('\\', "\\\\").replace('\'', "'\\''");
        text.replace('[', "\\[")
            .replace(']', "\\]")
            .replace(':', "\\:")
    };
    let commands: String = COMMANDS
        .iter()
        .map(|(name, _, about)| format!("        '{name}:{}'\n", plain(about)))
        .collect();
    let flags: String = offers()
        .iter()
        .map(|offer| {
            let (equals, value) = match offer.takes_value {
                true => ("=", ":value:_files"),
                false => ("", ""),
            };
            format!(
                "        '*--{}{equals}[{}]{value}'\n",
                offer.name,
                plain(&offer.about)
            )
        })
        .collect();
    let switches: String = switches()
        .map(|(command, switch, about)| {
            format!(
                "    [[ $words[2] == {command} ]] && flags+=('{switch}[{}]')\n",
                plain(about)
            )
        })
        .collect();
    format!(
        "#compdef coreway\n\
         _coreway() {{\n    local -a commands flags\n    commands=(\n{commands}    )\n    flags=(\n{flags}    )\n{switches}\
         \x20   if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then\n        _describe command commands\n\
         \x20   elif [[ $words[2] == completion ]]; then\n        _values shell bash zsh fish\n\
         \x20   else\n        _arguments -S $flags '*:file:_files'\n    fi\n}}\n\
         if [[ $funcstack[1] == _coreway ]]; then\n    _coreway \"$@\"\nelse\n    compdef _coreway coreway\nfi\n"
    )
}

fn fish() -> String {
    let plain = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let mut text = "# fish completion for coreway\n".to_owned();
    for (name, _, about) in COMMANDS {
        text += &format!(
            "complete -c coreway -n __fish_use_subcommand -f -a {name} -d '{}'\n",
            plain(about)
        );
    }
    text +=
        "complete -c coreway -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'\n";
    for (command, switch, about) in switches() {
        let switch = switch.trim_start_matches('-');
        text += &format!(
            "complete -c coreway -n '__fish_seen_subcommand_from {command}' -l {switch} -d '{}'\n",
            plain(about)
        );
    }
    for offer in offers() {
        let value = if offer.takes_value { " -r" } else { "" };
        text += &format!(
            "complete -c coreway -l {}{value} -d '{}'\n",
            offer.name,
            plain(&offer.about)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_is_offered_every_command_and_flag() {
        let spelt = [
            (Shell::Bash, "--", ""),
            (Shell::Zsh, "'*--", ""),
            (Shell::Fish, " -l ", " "),
        ];
        for (shell, before, after) in spelt {
            let script = script(shell);
            for flag in flags::all() {
                assert!(
                    script.contains(&format!("{before}{}{after}", flag.name)),
                    "{shell:?}: {}",
                    flag.name
                );
            }
            for (name, ..) in COMMANDS {
                assert!(script.contains(name), "{shell:?}: {name}");
            }
        }
    }

    #[test]
    fn descriptions_are_one_plain_sentence() {
        assert_eq!(sentence(" A `b` c. More."), "A 'b' c");
        assert_eq!(sentence("Only one."), "Only one");
    }
}
