//! Answers that are costly to make, for callers whom nobody counts.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A value that is made anew at most so many times a second; whoever comes more often gets the last one.
#[derive(Debug)]
pub struct Remade<T> {
    rate: u32,
    last: Mutex<Option<Made<T>>>,
}

#[derive(Debug)]
struct Made<T> {
    value: T,
    second: Instant,
    times: u32,
}

impl<T: Clone> Remade<T> {
    /// Nothing is made yet.
    pub fn new(rate: u32) -> Remade<T> {
        Remade { rate, last: Mutex::default() }
    }

    /// The value, made anew if that was not done too often in this second.
    pub fn get(&self, make: impl FnOnce() -> T) -> T {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (second, times) = match &*last {
            Some(m) if now.saturating_duration_since(m.second) < Duration::from_secs(1) => {
                (m.second, m.times)
            }
            _ => (now, 0),
        };
        match &*last {
            Some(m) if times >= self.rate => m.value.clone(),
            _ => {
                let value = make();
                *last = Some(Made { value: value.clone(), second, times: times + 1 });
                value
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_are_made() {
        let remade = Remade::new(3);
        let values: Vec<u32> = (0..100).map(|n| remade.get(|| n)).collect();
        assert_eq!((values[2], values[3], values[99]), (2, 2, 2));
    }
}
