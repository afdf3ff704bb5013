//! Explicit congestion notification through tunnels (RFC 6040), and code points (RFC 2983).

/// The two bits of ECN in the traffic class.
pub const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT1: u8 = 0b01;
const CE: u8 = 0b11;

/// The outer header says CE and the inner packet is not ECN-capable: it must be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CeNotPermitted;

/// The ECN field of a decapsulated packet (RFC 6040 4.2), from the traffic classes of the inner and outer
/// header. Encapsulation in normal mode is a plain copy (4.1).
///
/// # Errors
/// [`CeNotPermitted`] if the packet must be dropped.
#[inline]
pub const fn decapsulate(inner: u8, outer: u8) -> Result<u8, CeNotPermitted> {
    match (inner & ECN, outer & ECN) {
        (NOT_ECT, CE) => Err(CeNotPermitted),
        (NOT_ECT, _) => Ok(NOT_ECT),
        (CE, _) | (_, CE) => Ok(CE),
        (_, ECT1) => Ok(ECT1),
        (inner, _) => Ok(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_rfc_6040() {
        const ECT0: u8 = 0b10;
        let outer = [NOT_ECT, ECT0, ECT1, CE];
        let table = [
            (NOT_ECT, [Ok(NOT_ECT), Ok(NOT_ECT), Ok(NOT_ECT), Err(CeNotPermitted)]),
            (ECT0, [Ok(ECT0), Ok(ECT0), Ok(ECT1), Ok(CE)]),
            (ECT1, [Ok(ECT1), Ok(ECT1), Ok(ECT1), Ok(CE)]),
            (CE, [Ok(CE), Ok(CE), Ok(CE), Ok(CE)]),
        ];
        for (inner, want) in table {
            for (outer, want) in outer.into_iter().zip(want) {
                assert_eq!(decapsulate(inner, outer), want, "inner {inner:02b} outer {outer:02b}");
            }
        }
    }
}
