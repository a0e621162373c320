//! What stands on the command line of a command beside flags: a shell, or a request.
//!
//! Read next: `load.rs`.

use super::load::Command;

/// A request that `explain` is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    pub method: String,
    pub url: String,
    /// Names and values of its header fields, in their order.
    pub fields: Vec<(String, String)>,
}

/// A shell whose completion is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// What the usage line of a command says beside its flags.
pub(super) fn usage(command: &Command) -> &'static str {
    match command {
        Command::Explain(_) => "[flags] <method> <url> [-H <name>:<value>]...",
        Command::Completion(_) => "bash|zsh|fish",
        Command::Man => "",
        _ => "[flags] [<arguments>]",
    }
}

/// Takes the words that belong to `command` out of its arguments. With `--help` among them nothing is missing.
///
/// # Errors
/// A word is missing, or is not what it should be.
pub(super) fn take(command: &mut Command, arguments: &[String]) -> Result<Vec<String>, String> {
    let is_help = arguments
        .iter()
        .any(|argument| matches!(argument.as_str(), "--help" | "-h"));
    if is_help {
        return Ok(arguments.to_vec());
    }
    match command {
        Command::Explain(question) => self::question(question, arguments),
        Command::Completion(shell) => {
            *shell = match arguments {
                [word] if word == "bash" => Shell::Bash,
                [word] if word == "zsh" => Shell::Zsh,
                [word] if word == "fish" => Shell::Fish,
                _ => return Err("expected one of bash, zsh, fish".to_owned()),
            };
            Ok(Vec::new())
        }
        _ => Ok(arguments.to_vec()),
    }
}

fn question(question: &mut Question, arguments: &[String]) -> Result<Vec<String>, String> {
    let (mut flags, mut words) = (Vec::new(), Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-H" | "--header" => {
                let field = arguments.next().and_then(|text| field(text));
                let field = field
                    .ok_or_else(|| format!("{argument} needs a field such as 'Accept: */*'"))?;
                question.fields.push(field);
            }
            // The value of the one short flag that may stand by itself.
            "-c" | "-l" | "-g" => {
                flags.push(argument.clone());
                flags.extend(arguments.next().cloned());
            }
            flag if flag.starts_with('-') => flags.push(flag.to_owned()),
            word => words.push(word.to_owned()),
        }
    }
    match <[String; 2]>::try_from(words) {
        Ok([method, url]) => {
            question.method = method;
            question.url = url;
            Ok(flags)
        }
        Err(_) => {
            Err("expected a method and a URL, such as GET http://example.org/path".to_owned())
        }
    }
}

fn field(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    let name = name.trim();
    (!name.is_empty()).then(|| (name.to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mut command: Command, text: &str, expected: Result<(Command, &str), &str>) {
        let arguments: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let left = take(&mut command, &arguments);
        let expected = expected.map_err(str::to_owned);
        let found = left.map(|left| (command, left.join(" ")));
        assert_eq!(
            found,
            expected.map(|(command, left)| (command, left.to_owned())),
            "{text}"
        );
    }

    #[test]
    fn words_are_told_from_flags() {
        let explain = || Command::Explain(Question::default());
        let asked = |fields: &[(&str, &str)]| {
            let fields = fields
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()));
            Command::Explain(Question {
                method: "GET".to_owned(),
                url: "http://a/".to_owned(),
                fields: fields.collect(),
            })
        };
        check(explain(), "GET http://a/", Ok((asked(&[]), "")));
        check(
            explain(),
            "-c x GET -H A:b --debug http://a/ --header C:d:e",
            Ok((asked(&[("A", "b"), ("C", "d:e")]), "-c x --debug")),
        );
        check(explain(), "--help", Ok((explain(), "--help")));
        let missing = "expected a method and a URL, such as GET http://example.org/path";
        check(explain(), "http://a/", Err(missing));
        check(explain(), "GET http://a/ b", Err(missing));
        check(
            explain(),
            "GET http://a/ -H",
            Err("-H needs a field such as 'Accept: */*'"),
        );
        let shell = |shell| Command::Completion(shell);
        check(shell(Shell::Bash), "zsh", Ok((shell(Shell::Zsh), "")));
        check(
            shell(Shell::Bash),
            "csh",
            Err("expected one of bash, zsh, fish"),
        );
        check(
            shell(Shell::Bash),
            "",
            Err("expected one of bash, zsh, fish"),
        );
        check(Command::Run, "x --y", Ok((Command::Run, "x --y")));
    }
}
