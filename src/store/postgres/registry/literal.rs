//! Values in the text of a statement.

use crate::cluster::NodeId;

/// A node's id as a literal. The smallest number is not a bigint without the quotes.
pub(super) fn number(node: NodeId) -> String {
    format!("'{}'::bigint", node.0)
}

/// A text as a literal, whatever is in it and however the server reads backslashes.
pub(super) fn text(text: &str) -> String {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("convert_from(decode('{hex}', 'hex'), 'UTF8')")
}
