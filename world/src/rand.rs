//! Chance: from the machine in production, from the seed in simulation.
//!
//! Cores never call this: a seed comes to them as data.

/// Sixty-four random bits.
#[must_use]
pub fn u64() -> u64 {
    u64::from_le_bytes(bytes())
}

/// Random bytes, good enough for secrets in production.
#[must_use]
#[cfg(not(madsim))]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut data = [0; N];
    rand::TryRngCore::try_fill_bytes(&mut rand::rngs::OsRng, &mut data).expect("the machine has randomness");
    data
}

/// Random bytes of the seed.
#[must_use]
#[cfg(madsim)]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut data = [0; N];
    for chunk in data.chunks_mut(8) {
        let word: u64 = madsim::rand::random();
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
    data
}

/// A fresh API token: `dl_` and 32 hexadecimal digits.
#[must_use]
pub fn token() -> String {
    format!("dl_{}", crate::transfer::hex_digest(&bytes::<16>()))
}
