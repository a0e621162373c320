//! `errors` of a frontend: status ranges. Spec frontends 8.
//!
//! Owns what a range may look like. Which backend a page comes from is looked up by `compile/mod.rs`.

use std::ops::RangeInclusive;

use crate::config::dynamic;

/// The statuses that a page stands for.
///
/// # Errors
/// A text that is neither a number nor two with a dash between them.
pub(super) fn statuses(written: &dynamic::ErrorPage) -> Result<Box<[RangeInclusive<u16>]>, String> {
    let range = |text: &String| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) => Ok(first..=last),
            _ => Err(format!(
                "errors: {text:?} is neither a status nor a range such as 500-599"
            )),
        }
    };
    written.status.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let check = |texts: &[&str], expected: Result<&[RangeInclusive<u16>], &str>| {
            let written = dynamic::ErrorPage {
                status: texts.iter().map(|text| (*text).to_owned()).collect(),
                ..dynamic::ErrorPage::default()
            };
            let found = statuses(&written);
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        };
        check(&[], Ok(&[]));
        check(&["404", "500-599"], Ok(&[404..=404, 500..=599]));
        for wrong in ["", "5xx", "500-", "-1", "1-2-3", "500 - 599", "70000"] {
            let why = format!("errors: {wrong:?} is neither a status nor a range such as 500-599");
            check(&["404", wrong], Err(&why));
        }
    }
}
