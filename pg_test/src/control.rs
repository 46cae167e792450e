//! A new identity for a copied cluster.
//!
//! Copies of one cluster share its system identifier, by which Postgres (and pg_nodes) tell a
//! standby from a stranger. As `pg_createsubscriber` does: write another identifier into
//! `pg_control`, then let `pg_resetwal` begin a new WAL that carries it.
use crate::{Install, user};
use std::fs;
use std::path::Path;

/// Gives the stopped cluster in `data` a system identifier of its own.
pub(crate) fn new_identity(data: &Path) {
    let path = data.join("global/pg_control");
    let mut control = fs::read(&path).expect("cannot read pg_control");
    let crc_at = checksum_offset(&control);
    let old = u64::from_le_bytes(control[..8].try_into().expect("eight bytes"));
    let new = old.wrapping_add(crate::names::random_u64() >> 16 | 1);
    control[..8].copy_from_slice(&new.to_le_bytes());
    let crc = crc32c(&control[..crc_at]);
    control[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, control).expect("cannot write pg_control");

    let output = user::command(Install::get().program("pg_resetwal"))
        .args(["--force", "-D"])
        .arg(data)
        .output()
        .expect("cannot run pg_resetwal");
    assert!(
        output.status.success(),
        "pg_resetwal failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The checksum is the last field of a struct whose size differs between versions: it lies where
/// it matches what is before it.
fn checksum_offset(control: &[u8]) -> usize {
    (64..512)
        .step_by(4)
        .find(|&at| crc32c(&control[..at]).to_le_bytes() == control[at..at + 4])
        .expect("no checksum found in pg_control")
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1))
        })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc32c_of_the_standard_check_string() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
    }
}
