//! How a record lies in the store: a frame with a checksum of ours around JSON, since redb does not verify ordinary
//! reads. The checksum covers table and key too, so that a record in the wrong place is found out.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::StoreError;

const MAGIC: &[u8; 4] = b"WDR1";
const HEADER: usize = 12;

/// Frames `payload` for `key` of `table`.
pub(super) fn frame(table: &str, key: &[u8], payload: &[u8]) -> Result<Vec<u8>, StoreError> {
    let length = u32::try_from(payload.len()).map_err(|_| {
        StoreError::write(Path::new(table), format!("a record of {} bytes is too large", payload.len()))
    })?;
    let mut framed = Vec::with_capacity(HEADER + payload.len());
    framed.extend_from_slice(MAGIC);
    framed.extend_from_slice(&length.to_le_bytes());
    framed.extend_from_slice(&checksum(table, key, payload).to_le_bytes());
    framed.extend_from_slice(payload);
    Ok(framed)
}

/// The payload of a framed record, or what is wrong with it.
pub(super) fn unframe<'a>(table: &str, key: &[u8], framed: &'a [u8]) -> Result<&'a [u8], String> {
    let Some((header, payload)) = framed.split_at_checked(HEADER) else {
        return Err(format!("{} bytes are too few for a record", framed.len()));
    };
    let (magic, numbers) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err("it does not begin like a record of this program".to_owned());
    }
    let number = |at: usize| numbers.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    let (length, written) = (number(0).unwrap_or_default(), number(4).unwrap_or_default());
    if usize::try_from(length).ok() != Some(payload.len()) {
        return Err(format!("its length is {} bytes, but {length} were written", payload.len()));
    }
    let computed = checksum(table, key, payload);
    if computed != written {
        return Err(format!("its checksum is {computed:08x}, but {written:08x} was written"));
    }
    Ok(payload)
}

/// The JSON of `value`.
pub(super) fn to_json<T: Serialize>(file: &Path, value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::write(file, format!("cannot encode a record: {error}")))
}

/// A value from a payload whose checksum held.
pub(super) fn from_json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| format!("its JSON is not of this program's version: {error}"))
}

fn checksum(table: &str, key: &[u8], payload: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(0, table.as_bytes());
    // The separator keeps ("ab", "c") and ("a", "bc") apart.
    let sum = crc32c::crc32c_append(sum, &[0]);
    let sum = crc32c::crc32c_append(sum, key);
    crc32c::crc32c_append(sum, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_found() {
        let framed = frame("log", &7u64.to_be_bytes(), br#"{"a":1}"#).unwrap();
        assert_eq!(unframe("log", &7u64.to_be_bytes(), &framed).unwrap(), br#"{"a":1}"#);
        for at in 0..framed.len() {
            for bit in 0..8 {
                let mut bad = framed.clone();
                bad[at] ^= 1 << bit;
                assert!(unframe("log", &7u64.to_be_bytes(), &bad).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_cut_or_misplaced_record_is_found() {
        let framed = frame("log", &7u64.to_be_bytes(), br#"{"a":1}"#).unwrap();
        for length in 0..framed.len() {
            assert!(unframe("log", &7u64.to_be_bytes(), &framed[..length]).is_err(), "cut to {length}");
        }
        assert!(unframe("log", &8u64.to_be_bytes(), &framed).is_err());
        assert!(unframe("meta", &7u64.to_be_bytes(), &framed).is_err());
    }
}
