//! What several verbs take alike.

use clap::Args;

/// How much a list shows.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// Only the first N; 0: all [default: 200 on a terminal, else all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// What a person can look through.
const LIMIT_FOR_PEOPLE: usize = 200;

impl LimitArgs {
    /// The most that is wanted, by a person or by a program; none: all.
    pub(crate) fn most(&self, by_person: bool) -> Option<usize> {
        match self.limit {
            Some(0) => None,
            Some(limit) => Some(limit),
            None => by_person.then_some(LIMIT_FOR_PEOPLE),
        }
    }
}

/// A job: waited for, or not.
#[derive(Debug, Args)]
pub(crate) struct DetachArgs {
    /// In a cluster: print the job and do not wait for its end
    #[arg(long)]
    pub(crate) detach: bool,
}

/// `KEY=VALUE`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(String::from("write KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_asks_for_no_limit_gets_all() {
        let most = |limit, by_person| LimitArgs { limit }.most(by_person);
        assert_eq!((most(None, false), most(None, true)), (None, Some(LIMIT_FOR_PEOPLE)));
        assert_eq!((most(Some(0), true), most(Some(7), false)), (None, Some(7)));
    }

    #[test]
    fn a_label_has_a_key_and_may_have_an_empty_value() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(parse_label("tier=gold"), pair("tier", "gold"));
        assert_eq!(parse_label("a=b=c"), pair("a", "b=c"));
        assert_eq!(parse_label("spare="), pair("spare", ""));
        assert!(parse_label("tier").is_err());
        assert!(parse_label("=gold").is_err());
    }
}
