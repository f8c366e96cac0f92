//! Scaled dot-product attention.
//!
//! | type | what it is |
//! |---|---|
//! | [`Shape`] | the sizes of a call |
//! | [`Rules`] | how scores are formed and which keys a query sees |
//! | [`Exact`] | many queries: every score, every key, O(1) memory per query |
//! | [`Head`] | the same for one head and nothing else: for firmware |
//! | [`Decode`] | few queries against many keys |
//! | [`Cache`] | keys and values that arrive one by one, in fewer bits: appended, evicted, paged, saved |
//! | [`Rotary`] | rotary position embedding: of queries, and of keys as they are appended |
//! | [`Gradient`] | the way back: what the inputs of [`Exact`] should have been |
//! | [`Fit`] | parameters of queries and values, their loss and its gradient |
//! | [`Polynomial`] | almost linear time for small dimensions and bounded scores: power sums of all keys, a promise per row, exact where that is too weak |
//! | [`PolynomialGradient`] | its way back, almost linear too: a promise per query, exact where that is too weak |
//! | [`Pruned`] | reads the keys that matter and bounds the rest: an [`Index`] of blocks, a promise per row |
//! | [`Rounding`] | how far rounding can put their results off |
//! | [`Loss`] | what storing keys and values in fewer bits has lost |
//! | [`Share`] | a part of the work of a call, for a thread of yours; feature `parallel` has rayon do it |
//! | [`Partial`] | an unfinished row, to be merged with others over disjoint keys |
//!
//! Scores pass through scale, soft-cap, bias, mask and softmax, in this order: the contract of the ONNX `Attention`
//! operator (opsets 23 to 25).

mod block;
mod cache;
mod certificate;
mod decode;
mod exact;
mod fit;
mod gradient;
mod head;
mod outputs;
#[cfg(feature = "parallel")]
mod parallel;
mod partial;
mod polynomial;
mod polynomial_gradient;
mod reach;
mod rotary;
mod rules;
mod shape;
mod slots;
mod source;
mod sparse;
pub mod sparsity;
mod split;

pub use cache::{Cache, CacheShape, Progress, Store};
pub use certificate::{Loss, Rounding};
pub use decode::Decode;
pub use exact::Exact;
pub use fit::{Fit, FitGradients, FitInputs};
pub use gradient::{Gradient, Gradients, Saved, Upstream};
pub use head::Head;
pub use outputs::{Outputs, Stage};
pub use partial::Partial;
pub use polynomial::Polynomial;
pub use polynomial_gradient::{Aim, PolynomialGradient, PolynomialGradients};
pub use rotary::{Pairing, Positions, Rotary};
pub use rules::{Offset, Rules, Segments};
pub use shape::Shape;
pub use sparse::{cluster, cluster_need, Index, Pruned};
pub use split::Share;
#[cfg(feature = "capi")]
pub(crate) use split::Tasks;
