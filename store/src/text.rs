//! Enums as the text that the tables hold, spelled as on the wire.

use aegis_action::SourceTrust;
use aegis_broker::store::{AgentState, ApprovalStatus, PersonRole};

/// An enum with one spelling per value.
pub trait Text: Copy + 'static {
    /// Every value.
    const ALL: &'static [Self];
    /// Its spelling.
    fn text(self) -> &'static str;
    /// The value of a spelling; exact.
    fn from_text(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|v| v.text() == text)
    }
}

impl Text for AgentState {
    const ALL: &'static [Self] = &[Self::Active, Self::Frozen, Self::Quarantined, Self::Revoked, Self::Expired];
    fn text(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Frozen => "frozen",
            Self::Quarantined => "quarantined",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

impl Text for PersonRole {
    const ALL: &'static [Self] = &[Self::Admin, Self::Approver];
    fn text(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Approver => "approver",
        }
    }
}

impl Text for ApprovalStatus {
    const ALL: &'static [Self] =
        &[Self::Pending, Self::Approved, Self::Rejected, Self::Expired, Self::Consumed, Self::Cancelled];
    fn text(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Consumed => "consumed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Text for SourceTrust {
    const ALL: &'static [Self] = &SourceTrust::ALL;
    fn text(self) -> &'static str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled_as_on_the_wire<T: Text + serde::Serialize + PartialEq + std::fmt::Debug>() {
        for value in T::ALL {
            assert_eq!(serde_json::to_value(value).unwrap(), value.text());
            assert_eq!(T::from_text(value.text()), Some(*value));
        }
        assert_eq!(T::from_text("Active"), None);
    }

    #[test]
    fn stored_spellings_are_the_wire_spellings() {
        spelled_as_on_the_wire::<AgentState>();
        spelled_as_on_the_wire::<PersonRole>();
        spelled_as_on_the_wire::<ApprovalStatus>();
        spelled_as_on_the_wire::<SourceTrust>();
    }
}
