//! Which cores the data plane runs on: the text of `reactor.cores` and the process's affinity mask become core numbers.
//!
//! Never asks the kernel: the caller brings the mask. Read next: `reactor/affinity.rs`.

use std::fmt;

/// The cores that `text` asks for, in ascending order: `all`, a count (the first so many of `allowed`), or a list of
/// numbers and ranges such as `0-3,8` (`3,` or `3-3` for one certain core). `allowed` is the affinity mask, ascending.
///
/// # Errors
/// The text is none of these, or asks for cores outside `allowed`. Nothing sensible can be started.
pub fn select(text: &str, allowed: &[usize]) -> Result<Vec<usize>, CoresError> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("all") {
        return Ok(allowed.to_vec());
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return match text.parse::<usize>() {
            Ok(count) if count > allowed.len() => Err(CoresError::TooMany {
                asked: count,
                allowed: allowed.to_vec(),
            }),
            Ok(count) if count > 0 => Ok(allowed[..count].to_vec()),
            _ => Err(CoresError::Syntax(text.to_owned())),
        };
    }
    let mut cores = Vec::new();
    for part in text.trim_end_matches(',').split(',') {
        let (first, last) = range(part).ok_or_else(|| CoresError::Syntax(text.to_owned()))?;
        let within = |core: &&usize| (first..=last).contains(*core);
        let inside: Vec<usize> = allowed.iter().filter(within).copied().collect();
        if inside.len() != last - first + 1 {
            return Err(CoresError::Outside {
                asked: part.trim().to_owned(),
                allowed: allowed.to_vec(),
            });
        }
        cores.extend(inside);
    }
    cores.sort_unstable();
    cores.dedup();
    Ok(cores)
}

fn range(part: &str) -> Option<(usize, usize)> {
    let number = |text: &str| {
        let text = text.trim();
        // Linux has far fewer; the bound keeps the arithmetic above from overflowing.
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse::<u32>().ok().map(|n| n as usize))?
    };
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// Why the asked cores cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoresError {
    Syntax(String),
    TooMany { asked: usize, allowed: Vec<usize> },
    Outside { asked: String, allowed: Vec<usize> },
}

impl fmt::Display for CoresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) => {
                write!(
                    f,
                    "reactor.cores: expected `all`, a count or a list such as `0-3,8`, found `{text}`"
                )
            }
            Self::TooMany { asked, allowed } => write!(
                f,
                "reactor.cores: asks for {asked} cores, but this process may run on {} only: {}",
                allowed.len(),
                list(allowed)
            ),
            Self::Outside { asked, allowed } => write!(
                f,
                "reactor.cores: asks for {asked}, but this process may run on these cores only: {}",
                list(allowed)
            ),
        }
    }
}

impl std::error::Error for CoresError {}

/// Ascending core numbers in the form an operator writes them: `0-3,8`.
fn list(cores: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &core in cores {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => parts.push((core, core)),
        }
    }
    let text = |(first, last): &(usize, usize)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    parts.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&[usize], &str>) {
        let selected = select(text, &[0, 1, 2, 3, 8, 9]).map_err(|error| error.to_string());
        assert_eq!(
            selected.as_deref().map_err(String::as_str),
            expected,
            "{text}"
        );
    }

    #[test]
    fn cores_are_all_a_count_or_a_list() {
        check("all", Ok(&[0, 1, 2, 3, 8, 9]));
        check("ALL", Ok(&[0, 1, 2, 3, 8, 9]));
        check("1", Ok(&[0]));
        check("5", Ok(&[0, 1, 2, 3, 8]));
        check("0-3,8", Ok(&[0, 1, 2, 3, 8]));
        check("8, 1-2, 2", Ok(&[1, 2, 8]));
        check("3,", Ok(&[3]));
        check("3-3", Ok(&[3]));
    }

    #[test]
    fn cores_that_cannot_be_had_are_a_clear_error() {
        check(
            "7",
            Err("reactor.cores: asks for 7 cores, but this process may run on 6 only: 0-3,8-9"),
        );
        check(
            "2-4",
            Err(
                "reactor.cores: asks for 2-4, but this process may run on these cores only: 0-3,8-9",
            ),
        );
        check(
            "0,64",
            Err(
                "reactor.cores: asks for 64, but this process may run on these cores only: 0-3,8-9",
            ),
        );
        for text in [
            "",
            "0",
            "-1",
            "a",
            "1-",
            "3-1",
            "1,,2",
            "+1,2",
            "99999999999999999999",
            "0-99999999999",
        ] {
            let message = format!(
                "reactor.cores: expected `all`, a count or a list such as `0-3,8`, found `{text}`"
            );
            check(text, Err(&message));
        }
    }
}
