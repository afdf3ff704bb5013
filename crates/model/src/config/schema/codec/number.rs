//! Values that are numbers in the file.

use super::Codec;
use crate::config::schema::info::KeyInfo;
use crate::config::types::Mbps;
use crate::config::value::{Fault, fault};
use crate::ids::VlanId;
use std::marker::PhantomData;

/// A number within the key's range, or what is wrong with it.
fn in_range<N: TryFrom<i64>>(n: i64, key: &KeyInfo) -> Result<N, Fault> {
    let (least, greatest) = key.range.unwrap_or((i64::MIN, i64::MAX));
    match N::try_from(n) {
        Ok(value) if (least..=greatest).contains(&n) => Ok(value),
        _ => {
            let shown = match n {
                i64::MAX | i64::MIN => "the number".to_owned(),
                n => n.to_string(),
            };
            let remedy = match key.remedies.0 {
                "" => format!("write a number from {least} to {greatest}"),
                remedy => remedy.to_owned(),
            };
            fault(format!("{shown} is out of range"), remedy)
        }
    }
}

/// A warning about a number below what an RFC advises.
fn below_advised(n: i64, key: &KeyInfo) -> Option<Fault> {
    let (least, rfc) = key.advised.filter(|(least, _)| n < *least)?;
    let unit = key.unit;
    Some(Fault {
        problem: format!("{n} {unit} is shorter than {rfc} allows"),
        remedy: format!("sessions in use may break; {least} {unit} is the least"),
    })
}

macro_rules! numbers {
    ($($ty:ty),*) => { $(
        impl Codec for $ty {
            type Value = $ty;
            type Raw = i64;
            const KIND: &'static str = "integer";

            fn parse(raw: &i64, key: &KeyInfo) -> Result<$ty, Fault> {
                in_range(*raw, key)
            }

            fn write(value: &$ty) -> Option<i64> {
                Some(i64::from(*value))
            }

            fn remark(raw: &i64, _: &$ty, key: &KeyInfo) -> Option<Fault> {
                below_advised(*raw, key)
            }
        }
    )* };
}

numbers!(u8, u16, u32, i64);

/// A number in range, or 0.
pub(crate) struct OrZero<N>(PhantomData<N>);

impl<N: TryFrom<i64> + Into<i64> + Copy> Codec for OrZero<N> {
    type Value = N;
    type Raw = i64;
    const KIND: &'static str = "integer";

    fn parse(raw: &i64, key: &KeyInfo) -> Result<N, Fault> {
        match N::try_from(*raw) {
            Ok(zero) if *raw == 0 => Ok(zero),
            _ => in_range(*raw, key),
        }
    }

    fn write(value: &N) -> Option<i64> {
        Some((*value).into())
    }
}

/// A number in range, or 0 for none.
pub(crate) struct ZeroIsNone<N>(PhantomData<N>);

impl<N: TryFrom<i64> + Into<i64> + Copy> Codec for ZeroIsNone<N> {
    type Value = Option<N>;
    type Raw = i64;
    const KIND: &'static str = "integer";

    fn parse(raw: &i64, key: &KeyInfo) -> Result<Option<N>, Fault> {
        if *raw == 0 { Ok(None) } else { in_range(*raw, key).map(Some) }
    }

    fn write(value: &Option<N>) -> Option<i64> {
        Some(value.map_or(0, Into::into))
    }
}

/// 0 is unlimited.
impl Codec for Option<Mbps> {
    type Value = Option<Mbps>;
    type Raw = i64;
    const KIND: &'static str = "integer";

    fn parse(raw: &i64, key: &KeyInfo) -> Result<Option<Mbps>, Fault> {
        let n: u32 = in_range(*raw, key)?;
        Ok((n > 0).then_some(Mbps(n)))
    }

    fn write(value: &Option<Mbps>) -> Option<i64> {
        Some(value.map_or(0, |m| i64::from(m.0)))
    }
}

impl Codec for VlanId {
    type Value = VlanId;
    type Raw = i64;
    const KIND: &'static str = "integer";

    fn parse(raw: &i64, _: &KeyInfo) -> Result<VlanId, Fault> {
        match u16::try_from(*raw).ok().and_then(VlanId::new) {
            Some(v) => Ok(v),
            None if *raw == 0 => fault("0 is the untagged device", "leave the key out for untagged traffic"),
            None => fault("is out of range", "write a number from 1 to 4094"),
        }
    }

    fn write(value: &VlanId) -> Option<i64> {
        Some(i64::from(value.get()))
    }
}

/// Size of a port block.
pub(crate) struct BlockSize;

impl Codec for BlockSize {
    type Value = u16;
    type Raw = i64;
    const KIND: &'static str = "integer";

    fn parse(raw: &i64, _: &KeyInfo) -> Result<u16, Fault> {
        match u16::try_from(*raw) {
            Ok(n) if (64..=4096).contains(&n) && n.is_power_of_two() => Ok(n),
            _ => fault("is not the size of a block", "write 64, 128, 256, 512, 1024, 2048 or 4096"),
        }
    }

    fn write(value: &u16) -> Option<i64> {
        Some(i64::from(*value))
    }
}
