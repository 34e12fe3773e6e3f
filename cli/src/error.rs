//! Why a command does not succeed, and with which exit code.

use std::process::ExitCode;

use aegis_broker::config::Problem;

/// An error of the binary.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What was asked for did not happen. The text says why and what to do.
    #[error("{0}")]
    Failed(String),
    /// The gateway said no.
    #[error("{title} ({status}): {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// `title` of the problem document.
        title: String,
        /// `detail` of the problem document.
        detail: String,
    },
    /// The command line or the environment cannot work. Correct it.
    #[error("{0}")]
    Usage(String),
    /// Files that people edit are not usable. Each problem names its file and line.
    #[error("{} problem(s) in the configuration", .0.len())]
    Problems(Vec<Problem>),
}

impl CliError {
    /// [`CliError::Failed`] of any text.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// [`CliError::Usage`] of any text.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// 1 for what failed or was refused, 2 for what could not be understood or read.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Failed(_) | Self::Refused { .. } => ExitCode::from(1),
            Self::Usage(_) | Self::Problems(_) => ExitCode::from(2),
        }
    }
}
