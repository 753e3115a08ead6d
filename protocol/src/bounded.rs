//! Lists for serde with a bound on their length: a frame of tiny elements would otherwise take many times its size
//! in memory before anybody could refuse it. The wire form is that of `Vec`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Elements that are reserved for at once; what is announced is not believed.
const RESERVED: usize = 1024;

pub(crate) fn list<'de, D, T, const MOST: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(List::<T, MOST>(PhantomData))
}

struct List<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MOST} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let announced = seq.size_hint().unwrap_or(0);
        if announced > MOST {
            return Err(A::Error::invalid_length(announced, &self));
        }
        let mut list = Vec::with_capacity(announced.min(RESERVED));
        while let Some(element) = seq.next_element()? {
            if list.len() == MOST {
                return Err(A::Error::invalid_length(MOST + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, Deserialize)]
    struct Three(#[serde(deserialize_with = "list::<_, _, 3>")] Vec<u8>);

    #[test]
    fn one_too_many_is_refused() {
        let three = postcard::to_allocvec(&Three(vec![1, 2, 3])).expect("encodes");
        assert_eq!(postcard::from_bytes(&three), Ok(Three(vec![1, 2, 3])));
        let four = postcard::to_allocvec(&Three(vec![1, 2, 3, 4])).expect("encodes");
        assert!(postcard::from_bytes::<Three>(&four).is_err());
    }
}
