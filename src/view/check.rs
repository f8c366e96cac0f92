//! Size arithmetic shared by the views: every product checked, in release builds too.

use crate::error::Error;

/// One axis of a view: how many steps, and how far apart in elements.
#[derive(Clone, Copy)]
pub struct Axis {
    pub len: usize,
    pub stride: usize,
}

/// Elements from the first to one past the last that the axes reach; 0 if any axis is empty.
pub const fn span(axes: &[Axis]) -> Result<usize, Error> {
    // First, as then no other axis is walked, however long.
    let mut rest = axes;
    while let [axis, tail @ ..] = rest {
        if axis.len == 0 {
            return Ok(0);
        }
        rest = tail;
    }
    let mut last = 0usize;
    let mut rest = axes;
    while let [axis, tail @ ..] = rest {
        let Some(reach) = (axis.len - 1).checked_mul(axis.stride) else {
            return Err(Error::Overflow);
        };
        last = match last.checked_add(reach) {
            Some(n) => n,
            None => return Err(Error::Overflow),
        };
        rest = tail;
    }
    match last.checked_add(1) {
        Some(n) if n <= isize::MAX as usize => Ok(n),
        _ => Err(Error::Overflow),
    }
}

/// [`Error::Overlap`] unless every index reaches an element of its own.
///
/// Sufficient and simple: sorted by stride, each axis must step over all that the smaller ones reach. Every layout that
/// is made by slicing, transposing and packing heads passes.
pub const fn disjoint<const N: usize>(mut axes: [Axis; N]) -> Result<(), Error> {
    // Without elements nothing is shared, whatever the strides.
    if matches!(span(&axes), Ok(0)) {
        return Ok(());
    }
    // Axes of one step have no stride to speak of.
    let mut sorted = true;
    let mut passes = 0;
    while sorted && passes < N {
        sorted = false;
        let mut rest: &mut [Axis] = &mut axes;
        while let [a, b, ..] = rest {
            if a.stride > b.stride {
                let swap = *a;
                *a = *b;
                *b = swap;
                sorted = true;
            }
            rest = match rest {
                [_, tail @ ..] => tail,
                [] => &mut [],
            };
        }
        passes += 1;
    }
    let mut reach = 0usize;
    let mut rest: &[Axis] = &axes;
    while let [axis, tail @ ..] = rest {
        if axis.len > 1 {
            if axis.stride <= reach {
                return Err(Error::Overlap);
            }
            reach = match (axis.len - 1).checked_mul(axis.stride) {
                Some(n) => match reach.checked_add(n) {
                    Some(n) => n,
                    None => return Err(Error::Overflow),
                },
                None => return Err(Error::Overflow),
            };
        }
        rest = tail;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_nothing_whichever_axis_is_empty() {
        let long = Axis {
            len: 3,
            stride: usize::MAX,
        };
        for empty in 0..3 {
            let mut axes = [long; 3];
            axes[empty].len = 0;
            assert_eq!((span(&axes), disjoint(axes)), (Ok(0), Ok(())));
        }
        assert_eq!(span(&[long; 3]), Err(Error::Overflow));
    }
}
