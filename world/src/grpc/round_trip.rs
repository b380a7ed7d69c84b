//! Messages through their bytes, on a network that hands over memory.

use prost::Message;
use std::any::{Any, TypeId, type_name};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

/// As madsim-tonic hands it over.
type BoxMessage = Box<dyn Any + Send + Sync>;
type RoundTrip = fn(BoxMessage) -> BoxMessage;

/// How a message of each type is encoded and read again.
#[derive(Clone, Default)]
pub struct RoundTrips(Arc<BTreeMap<TypeId, RoundTrip>>);

impl RoundTrips {
    /// Adds a type.
    pub fn add<M: Message + Default + PartialEq + Debug + 'static>(&mut self) {
        Arc::make_mut(&mut self.0).insert(TypeId::of::<M>(), round_trip::<M>);
    }

    /// What the other side reads of this message. Panics where it could not, or
    /// would read something else: then a real network would lose something that
    /// the simulation keeps.
    pub fn take(&self, message: BoxMessage) -> BoxMessage {
        let inner: &dyn Any = &*message;
        if self.0.is_empty() {
            return message;
        }
        let round_trip = self.0.get(&inner.type_id());
        round_trip.expect("the server was told of every message type of its services")(message)
    }
}

/// Field 1000, which no message has: a varint of 1.
const UNKNOWN_FIELD: [u8; 3] = [0xc0, 0x3e, 0x01];

fn round_trip<M: Message + Default + PartialEq + Debug + 'static>(message: BoxMessage) -> BoxMessage {
    let mut message = message.downcast::<M>().expect("it was looked up by its type");
    let mut bytes = Vec::with_capacity(message.encoded_len() + UNKNOWN_FIELD.len());
    message.encode(&mut bytes).expect("a vector grows");
    // Whoever speaks a newer version says more, which this one passes over.
    bytes.extend_from_slice(&UNKNOWN_FIELD);
    match M::decode(bytes.as_slice()) {
        Ok(read) if read == *message => {
            *message = read;
            message
        }
        Ok(read) => panic!("{} reads as something else: {message:?} as {read:?}", type_name::<M>()),
        Err(error) => panic!("{} cannot be read again: {error}: {message:?}", type_name::<M>()),
    }
}

#[cfg(test)]
mod tests {
    use super::{BoxMessage, RoundTrips};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[derive(Clone, PartialEq, prost::Message)]
    struct Word {
        #[prost(string, tag = "1")]
        text: String,
    }

    /// Never equal to what comes back.
    #[derive(Clone, prost::Message)]
    struct Lost {
        #[prost(uint32, tag = "1")]
        number: u32,
    }

    impl PartialEq for Lost {
        fn eq(&self, _: &Self) -> bool {
            false
        }
    }

    fn panics(types: &RoundTrips, message: BoxMessage) -> bool {
        catch_unwind(AssertUnwindSafe(|| types.take(message))).is_err()
    }

    #[test]
    fn messages_survive_their_bytes_or_end_the_run() {
        let mut types = RoundTrips::default();
        assert_eq!(types.take(Box::new(7u64)).downcast_ref(), Some(&7u64), "no types, no bytes");
        types.add::<Word>();
        types.add::<Lost>();
        let word = Word { text: "word".into() };
        assert_eq!(types.take(Box::new(word.clone())).downcast_ref(), Some(&word));
        assert!(panics(&types, Box::new(Lost { number: 1 })), "it reads as something else");
        assert!(panics(&types, Box::new(7u64)), "nobody named this type");
    }
}
