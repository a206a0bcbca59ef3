//! A map in the order of its entries, and numbers in JSON.

use serde::{Serialize, Serializer};

/// Entries by key, in a fixed order. JSON shows them as a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Ordered<K, V>(pub Vec<(K, V)>);

impl<K: PartialEq, V> Ordered<K, V> {
    /// The value of the key.
    pub fn get<Q: ?Sized + PartialEq<K>>(&self, key: &Q) -> Option<&V> {
        self.0.iter().find(|(other, _)| key == other).map(|(_, value)| value)
    }
}

impl<K, V> FromIterator<(K, V)> for Ordered<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl<K: Serialize, V: Serialize> Serialize for Ordered<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// A number for JSON, which has no infinity: infinity is the text `inf`.
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_infinite() { serializer.collect_str(&self.0) } else { serializer.serialize_f64(self.0) }
    }
}

/// Serializes a number that may be infinite.
pub fn number<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    Number(*number).serialize(serializer)
}

/// Serializes three numbers that may be infinite.
pub fn quartiles<S: Serializer>(numbers: &[f64; 3], serializer: S) -> Result<S::Ok, S::Error> {
    numbers.map(Number).serialize(serializer)
}

/// Serializes an interval whose ends may be infinite.
pub fn interval<S: Serializer>(ends: &Option<[f64; 2]>, serializer: S) -> Result<S::Ok, S::Error> {
    ends.map(|ends| ends.map(Number)).serialize(serializer)
}
