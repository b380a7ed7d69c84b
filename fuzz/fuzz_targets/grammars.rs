//! What the small grammars accept, they print so that it reads back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(array) = proto::array::parse(text) {
        let printed = proto::array::format(&array);
        assert_eq!(proto::array::parse(&printed).as_ref(), Ok(&array), "{text} -> {printed}");
        let count = proto::array::count(&array);
        for ordinal in [0, count / 2, count.saturating_sub(1)] {
            if let Some(index) = proto::array::index_of(&array, ordinal) {
                assert_eq!(proto::array::ordinal_of(&array, index), Some(ordinal));
            }
        }
    }
    if let Ok(span_ms) = proto::units::parse_duration_ms(text) {
        let printed = proto::units::format_duration_ms(span_ms);
        assert_eq!(proto::units::parse_duration_ms(&printed).ok(), Some(span_ms));
    }
    if let Ok(bytes) = proto::units::parse_memory_bytes(text) {
        let printed = proto::units::format_memory_bytes(bytes);
        assert_eq!(proto::units::parse_memory_bytes(&printed).ok(), Some(bytes));
    }
});
