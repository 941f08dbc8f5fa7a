//! Exit codes: a promise to scripts, made in one place.

use tresor_storage::Kind;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// What was asked for is done.
    Done,
    /// It failed for a reason that no other code names.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// Stored bytes are missing or are not what was written.
    Damage,
    /// A thing that was named is not there.
    NotFound,
    /// No permission, or the wrong key.
    Denied,
    /// Another process, home or cluster holds it, or has changed it.
    Held,
    /// The store or the cluster did not answer.
    Unreachable,
    /// No space.
    Full,
    /// Stopped by a signal.
    Interrupted,
}

impl Code {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 10] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Damage,
        Self::NotFound,
        Self::Denied,
        Self::Held,
        Self::Unreachable,
        Self::Full,
        Self::Interrupted,
    ];

    /// The number that the process ends with.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Damage => 3,
            Self::NotFound => 4,
            Self::Denied => 5,
            Self::Held => 6,
            Self::Unreachable => 7,
            Self::Full => 8,
            Self::Interrupted => 130,
        }
    }
}

/// What an error is for the caller of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The command line or the configuration is wrong.
    Usage,
    /// Told to stop.
    Interrupted,
    /// A vault and its store, by what helps.
    Vault(Kind),
    /// A disk or another file of this machine, by what helps.
    Machine(Kind),
    /// A part of the vault that a recovery point needs is missing or wrong.
    Damage,
}

impl Failure {
    /// The exit code.
    pub(crate) const fn code(self) -> Code {
        match self {
            Self::Usage => Code::Usage,
            Self::Interrupted => Code::Interrupted,
            Self::Damage => Code::Damage,
            Self::Vault(kind) | Self::Machine(kind) => match kind {
                Kind::Missing => Code::NotFound,
                Kind::Denied => Code::Denied,
                Kind::Fenced => Code::Held,
                Kind::Full => Code::Full,
                // A disk that cannot be read is no store that cannot be reached, and a broken image no damage of a vault.
                Kind::Retry if matches!(self, Self::Vault(_)) => Code::Unreachable,
                Kind::Corrupt if matches!(self, Self::Vault(_)) => Code::Damage,
                Kind::Retry | Kind::Corrupt | Kind::Invalid | Kind::Unsupported | Kind::Bug => Code::Failed,
            },
        }
    }

    /// The word in `--json` and in metrics.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Interrupted => "interrupted",
            Self::Damage => "damage",
            Self::Vault(kind) | Self::Machine(kind) => match kind {
                Kind::Retry => "retry",
                Kind::Invalid => "invalid",
                Kind::Missing => "missing",
                Kind::Corrupt => "corrupt",
                Kind::Unsupported => "unsupported",
                Kind::Fenced => "fenced",
                Kind::Full => "full",
                Kind::Denied => "denied",
                Kind::Bug => "bug",
            },
        }
    }

    /// Every word that [`word`](Self::word) can give.
    pub(crate) const WORDS: [&'static str; 12] = [
        "usage",
        "interrupted",
        "damage",
        "retry",
        "invalid",
        "missing",
        "corrupt",
        "unsupported",
        "fenced",
        "full",
        "denied",
        "bug",
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 9] = [
        Kind::Retry,
        Kind::Invalid,
        Kind::Missing,
        Kind::Corrupt,
        Kind::Unsupported,
        Kind::Fenced,
        Kind::Full,
        Kind::Denied,
        Kind::Bug,
    ];

    #[test]
    fn every_failure_has_the_code_that_the_documentation_promises() {
        for (failure, code) in [
            (Failure::Usage, 2),
            (Failure::Interrupted, 130),
            (Failure::Damage, 3),
            (Failure::Vault(Kind::Retry), 7),
            (Failure::Vault(Kind::Invalid), 1),
            (Failure::Vault(Kind::Missing), 4),
            (Failure::Vault(Kind::Corrupt), 3),
            (Failure::Vault(Kind::Unsupported), 1),
            (Failure::Vault(Kind::Fenced), 6),
            (Failure::Vault(Kind::Full), 8),
            (Failure::Vault(Kind::Denied), 5),
            (Failure::Vault(Kind::Bug), 1),
            (Failure::Machine(Kind::Retry), 1),
            (Failure::Machine(Kind::Invalid), 1),
            (Failure::Machine(Kind::Missing), 4),
            (Failure::Machine(Kind::Corrupt), 1),
            (Failure::Machine(Kind::Unsupported), 1),
            (Failure::Machine(Kind::Fenced), 6),
            (Failure::Machine(Kind::Full), 8),
            (Failure::Machine(Kind::Denied), 5),
            (Failure::Machine(Kind::Bug), 1),
        ] {
            assert_eq!(failure.code().number(), code, "{failure:?}");
        }
    }

    #[test]
    fn no_two_codes_share_a_number() {
        let numbers: std::collections::BTreeSet<u8> = Code::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers.len(), Code::ALL.len());
    }

    #[test]
    fn every_failures_word_is_listed_once() {
        let mut words: Vec<&str> = KINDS.iter().map(|kind| Failure::Vault(*kind).word()).collect();
        words.extend([Failure::Usage, Failure::Interrupted, Failure::Damage].map(Failure::word));
        words.sort_unstable();
        let mut listed = Failure::WORDS;
        listed.sort_unstable();
        assert_eq!(words, listed);
    }
}
