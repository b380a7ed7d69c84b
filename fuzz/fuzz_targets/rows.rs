//! Damaged rows and keys are refused, never a panic; whole ones survive a
//! round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use proto::v1::{BlockRow, EventBatchRow, GrantRow, JobRow, JobStateRow, ManifestRow};

fn round_trip<T: Message + Default + PartialEq>(bytes: &[u8]) {
    if let Ok(row) = T::decode(bytes) {
        assert!(T::decode(&row.encode_to_vec()[..]).is_ok_and(|again| again == row));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let _ = proto::keys::parse(bytes);
    round_trip::<JobRow>(bytes);
    round_trip::<JobStateRow>(bytes);
    round_trip::<BlockRow>(bytes);
    round_trip::<GrantRow>(bytes);
    round_trip::<EventBatchRow>(bytes);
    round_trip::<ManifestRow>(bytes);
});
