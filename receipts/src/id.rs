//! Receipt ids: derived from node and sequence number, stored nowhere.

/// `rcp_<node>_<seq>`.
pub fn receipt_id(node: &str, seq: u64) -> String {
    format!("rcp_{node}_{seq}")
}

/// Node and sequence number of an id; exactly the spelling [`receipt_id`] makes, or `None`.
pub fn parse_receipt_id(id: &str) -> Option<(&str, u64)> {
    let (node, seq) = id.strip_prefix("rcp_")?.split_once('_')?;
    let number = seq.parse().ok()?;
    // `+7` and `007` parse as numbers too; one receipt has one id.
    (is_node(node) && receipt_id(node, number) == id).then_some((node, number))
}

/// 1 to 32 of `a-z`, `0-9`, `-`.
pub(crate) fn is_node(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        assert_eq!(receipt_id("gw-1", 42), "rcp_gw-1_42");
        assert_eq!(parse_receipt_id("rcp_gw-1_42"), Some(("gw-1", 42)));
        assert_eq!(parse_receipt_id("rcp_a_18446744073709551615"), Some(("a", u64::MAX)));
        for bad in [
            "rcp_gw-1_042",
            "rcp_gw-1_+42",
            "rcp_gw-1_",
            "rcp__1",
            "rcp_A_1",
            "rcp_a_1_2",
            "rec_a_1",
            "",
            "rcp_a_18446744073709551616",
        ] {
            assert_eq!(parse_receipt_id(bad), None, "{bad}");
        }
    }
}
