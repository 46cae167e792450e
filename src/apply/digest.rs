//! What stands for a conninfo where it cannot be read back: equal for equal conninfos, and with
//! the registry's key so that nobody who sees it can try passwords.

use hmac::{Hmac, KeyInit as _, Mac as _};
use nodes_plan::conninfo::Conninfo;
use sha2::Sha256;
use std::collections::BTreeMap;

/// Enough for two conninfos of one link not to look alike by chance.
const BYTES: usize = 8;

/// HMAC-SHA256 of the options in alphabetical order, in hexadecimal and shortened. Without a
/// key, which a registry gets with its first node, there is none.
pub fn digest(key: Option<&str>, conninfo: &Conninfo) -> String {
    let mac = key.map(|key| Hmac::<Sha256>::new_from_slice(key.as_bytes()));
    let Some(Ok(mut mac)) = mac else { return String::new() };
    for (option, value) in conninfo.iter().collect::<BTreeMap<_, _>>() {
        for text in [option, value] {
            mac.update(text.as_bytes());
            // No option and no value has one.
            mac.update(&[0]);
        }
    }
    mac.finalize().into_bytes().iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect()
}
