//! How far the content that drives an agent can be trusted.

use serde::{Deserialize, Serialize};

/// Source trust, most trusted first: `a < b` means `a` is trusted more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceTrust {
    /// Signed by a system of our own.
    TrustedInternalSigned,
    /// From a system of our own, unsigned.
    TrustedInternalUnsigned,
    /// From a known customer.
    SemiTrustedCustomer,
    /// From anywhere.
    UntrustedExternal,
    /// Believed hostile.
    MaliciousSuspected,
    /// Nobody knows.
    Unknown,
}

impl SourceTrust {
    /// All labels, most trusted first.
    pub const ALL: [Self; 6] = [
        Self::TrustedInternalSigned,
        Self::TrustedInternalUnsigned,
        Self::SemiTrustedCustomer,
        Self::UntrustedExternal,
        Self::MaliciousSuspected,
        Self::Unknown,
    ];

    /// The name used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TrustedInternalSigned => "trusted_internal_signed",
            Self::TrustedInternalUnsigned => "trusted_internal_unsigned",
            Self::SemiTrustedCustomer => "semi_trusted_customer",
            Self::UntrustedExternal => "untrusted_external",
            Self::MaliciousSuspected => "malicious_suspected",
            Self::Unknown => "unknown",
        }
    }

    /// Reads a wire name; exact spelling only.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == text)
    }

    /// The least trusted of two: a client can lower trust and never raise it.
    pub fn least(self, other: Self) -> Self {
        self.max(other)
    }
}
