//! The types of all messages that travel in calls: a network that hands over
//! memory (the simulated one) has to know them to take them through bytes.

/// Takes types one by one.
pub trait MessageTypes {
    /// A type that is some call's request or reply.
    fn add<M: prost::Message + Default + PartialEq + std::fmt::Debug + 'static>(&mut self);
}

include!(concat!(env!("OUT_DIR"), "/travelling.rs"));
