//! What a message carries besides its text.

use crate::{
    domain::{Attached, Change, Invalid, MAX_DATA_TYPE_BYTES},
    grpc::calls::Limits,
};

/// The fields, as they came.
pub struct Carried {
    pub reply_to: i64,
    pub data: Vec<u8>,
    pub data_type: String,
    pub mentions: Vec<String>,
}

/// What the fields are called where they stand.
pub struct Names {
    pub reply_to: &'static str,
    pub data: &'static str,
    pub data_type: &'static str,
    pub mentions: &'static str,
}

/// The fields of a message in `$of`.
macro_rules! names {
    ($of:literal) => {
        $crate::grpc::validate::attached::Names {
            reply_to: concat!($of, ".reply_to"),
            data: concat!($of, ".data"),
            data_type: concat!($of, ".data_type"),
            mentions: concat!($of, ".mentions"),
        }
    };
}
pub(super) use names;

/// What they say; `None`: nothing.
///
/// # Errors
/// What is wrong with which field.
pub fn attached(
    carried: Carried,
    limits: &Limits,
    names: &Names,
) -> Result<Option<Box<Change>>, (&'static str, Invalid)> {
    let Carried {
        reply_to,
        data,
        data_type,
        mentions,
    } = carried;
    if reply_to == 0 && data.is_empty() && data_type.is_empty() && mentions.is_empty() {
        return Ok(None);
    }
    if reply_to < 0 {
        return Err((names.reply_to, Invalid("must not be negative".into())));
    }
    let max = limits.max_data;
    if data.len() > max {
        let why = Invalid(format!("must be at most {max} bytes long"));
        return Err((names.data, why));
    }
    check_type(&data_type, data.is_empty()).map_err(|why| (names.data_type, why))?;
    let mentions =
        super::each_once(&mentions, limits.max_mentions).map_err(|why| (names.mentions, why))?;
    let reply_to = (reply_to > 0).then_some(reply_to);
    let attached = Attached::new(reply_to, &data, &data_type, &mentions);
    Ok(attached.map(|attached| Box::new(Change::Attached(attached))))
}

fn check_type(data_type: &str, of_nothing: bool) -> Result<(), Invalid> {
    if data_type.is_empty() != of_nothing {
        return Err(Invalid("comes with data, and data with it".into()));
    }
    if data_type.len() > MAX_DATA_TYPE_BYTES {
        let why = format!("must be at most {MAX_DATA_TYPE_BYTES} bytes long");
        return Err(Invalid(why));
    }
    if !data_type.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Invalid("must be printable ASCII without spaces".into()));
    }
    Ok(())
}
