//! Several servers of which one serves: where to ask, and where to ask next.

/// Addresses, as `HOST:PORT,HOST:PORT`; at most so many are heeded.
pub const SERVERS_MAX: usize = 16;

/// See the module. Of one address it says always the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    addresses: Vec<String>,
    at: usize,
}

impl Servers {
    /// Of a list with commas between. What is in it is looked at when it is connected
    /// to; of an empty list the text itself is the address.
    #[must_use]
    pub fn parse(list: &str) -> Self {
        let parts = list.split(',').map(str::trim).filter(|address| !address.is_empty());
        let mut addresses: Vec<String> = parts.take(SERVERS_MAX).map(str::to_owned).collect();
        if addresses.is_empty() {
            addresses.push(list.to_owned());
        }
        Self { addresses, at: 0 }
    }

    /// The one to ask.
    #[must_use]
    pub fn current(&self) -> &str {
        &self.addresses[self.at]
    }

    /// How many there are; never none.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// The one that was asked does not serve: on to the next. True where all have been
    /// asked since the first.
    pub fn turn(&mut self) -> bool {
        self.at = (self.at + 1) % self.addresses.len();
        self.at == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_asked_in_turn() {
        let mut servers = Servers::parse("a:1, b:2,,");
        assert_eq!((servers.current(), servers.len()), ("a:1", 2));
        assert!(!servers.turn());
        assert_eq!(servers.current(), "b:2");
        assert!(servers.turn());
        assert_eq!(servers.current(), "a:1");
        let mut one = Servers::parse("a:1");
        assert!(one.turn());
        assert_eq!((one.current(), Servers::parse("").current()), ("a:1", ""));
    }
}
