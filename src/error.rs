//! The one failure type. An error means that nothing was written.

/// Why a call was refused.
///
/// The numbers are part of the C ABI and never change. No variant carries data: numbers that explain a refusal live in
/// query functions, so that an error costs a register and no formatting code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum Error {
    /// A pointer is null where data is needed.
    Null = -1,
    /// A typed pointer is not aligned for its element.
    Misaligned = -2,
    /// A buffer or the scratch memory is shorter than the shape needs.
    Short = -3,
    /// Shapes do not fit each other, or a stride is not allowed.
    Shape = -4,
    /// A size product does not fit the address space.
    Overflow = -5,
    /// An output overlaps itself, another output or an input.
    Overlap = -6,
    /// A value is NaN or infinite where only finite values have a meaning.
    NonFinite = -7,
    /// A parameter has no meaning, for example a negative cap.
    Parameter = -8,
    /// An index or length lies outside its sequence.
    Range = -9,
    /// There is nothing to work on.
    Empty = -10,
    /// A fixed-size store has no room left.
    Full = -11,
    /// A matrix is singular to working precision.
    Singular = -12,
    /// An iteration used up its steps.
    NotConverged = -13,
    /// The promised error bound is weaker than the tolerance that was asked for.
    BoundExceeded = -14,
    /// Two states have different shapes, seeds or parameters and cannot be merged.
    Mismatch = -15,
    /// Saved bytes are damaged or from another version.
    Corrupt = -16,
    /// This build or machine does not offer what was asked for.
    Unsupported = -17,
}

impl Error {
    /// Every error, in the order of its code.
    pub const ALL: [Error; 17] = [
        Error::Null,
        Error::Misaligned,
        Error::Short,
        Error::Shape,
        Error::Overflow,
        Error::Overlap,
        Error::NonFinite,
        Error::Parameter,
        Error::Range,
        Error::Empty,
        Error::Full,
        Error::Singular,
        Error::NotConverged,
        Error::BoundExceeded,
        Error::Mismatch,
        Error::Corrupt,
        Error::Unsupported,
    ];

    /// The C status code: negative, never 0.
    #[must_use]
    pub const fn code(self) -> i32 {
        self as i32
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, f)
    }
}

impl core::error::Error for Error {}
