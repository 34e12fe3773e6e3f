//! What an operation can do, and how bad it would be.

use serde::{Deserialize, Serialize};

/// Access class of a catalog entry: what an operation can do to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessClass {
    /// Changes nothing.
    Read,
    /// Creates or changes content.
    Write,
    /// Removes.
    Delete,
    /// Changes who may do what.
    Admin,
    /// Returns a credential.
    Mint,
    /// Plants something that acts later.
    Persist,
    /// Moves money.
    Money,
}

/// How much harm a wrong call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Harmless.
    Low,
    /// Annoying, undone easily.
    Medium,
    /// Costly.
    High,
    /// Not to be undone, or opens the door to everything else.
    Critical,
}

impl AccessClass {
    /// All classes, in the order people list them.
    pub const ALL: [Self; 7] =
        [Self::Read, Self::Write, Self::Delete, Self::Admin, Self::Mint, Self::Persist, Self::Money];

    /// The name used in catalogs, policies and leaves.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Admin => "admin",
            Self::Mint => "mint",
            Self::Persist => "persist",
            Self::Money => "money",
        }
    }
}

impl Risk {
    /// All levels, lowest first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The name used in catalogs, policies and leaves.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}
