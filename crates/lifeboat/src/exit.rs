//! Exit codes, as data: the program, its help and its documents all read this one list.

use std::fmt::Write as _;
use std::process::ExitCode;

/// How a command ends, for scripts. Numbers are a contract; 10 to 12 mean what they mean for restic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// Wrong usage or configuration.
    Usage,
    /// The data is bad, stale or unproven.
    BadData,
    /// Refused for safety.
    Refused,
    /// There is no repository.
    NoRepository,
    /// The repository is locked.
    Locked,
    /// The repository's password is wrong.
    WrongPassword,
    /// Interrupted.
    Interrupted,
}

impl Exit {
    /// Every way to end, in the order of the numbers.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::BadData,
        Self::Refused,
        Self::NoRepository,
        Self::Locked,
        Self::WrongPassword,
        Self::Interrupted,
    ];

    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::BadData => 3,
            Self::Refused => 4,
            Self::NoRepository => 10,
            Self::Locked => 11,
            Self::WrongPassword => 12,
            Self::Interrupted => 130,
        }
    }

    /// What it means, in a few words.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "wrong usage or configuration",
            Self::BadData => "the data is bad, stale or unproven (verify, drill, status)",
            Self::Refused => "refused for safety",
            Self::NoRepository => "there is no repository",
            Self::Locked => "the repository is locked",
            Self::WrongPassword => "the repository's password is wrong",
            Self::Interrupted => "interrupted",
        }
    }

    /// The list, as the help shows it.
    pub fn help() -> String {
        Self::ALL
            .into_iter()
            .fold(String::from("Exit codes:"), |mut text, exit| {
                let _ = write!(text, "\n  {:>3}  {}", exit.code(), exit.meaning());
                text
            })
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_without_doubles() {
        let codes: Vec<u8> = Exit::ALL.map(Exit::code).into();
        assert!(codes.is_sorted_by(|left, right| left < right), "{codes:?}");
    }
}
