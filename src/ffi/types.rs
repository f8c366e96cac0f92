//! Plain structs of the C interface. A zero-initialised one means "nothing special" everywhere.

/// Matrices of floats to read: batch x heads x rows x cols.
///
/// Element (b, h, r, c) is data[b * batch_stride + h * head_stride + r * row_stride + c]. Strides count elements, not
/// bytes; 0 repeats. `col_stride` must be 1. One matrix is { data, 1, 1, rows, cols, 0, 0, cols, 1 }; heads packed side
/// by side in rows of heads * cols are { data, batch, heads, rows, cols, rows * heads * cols, cols, heads * cols, 1 }.
/// `data` must be aligned for float and may be null where there are no elements (or where a field is optional).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct subquad_tensor {
    /// Element (0, 0, 0, 0).
    pub data: *const f32,
    /// Independent problems.
    pub batch: usize,
    /// Matrices per problem.
    pub heads: usize,
    /// Rows of each matrix.
    pub rows: usize,
    /// Columns of each matrix.
    pub cols: usize,
    /// Elements from one problem to the next.
    pub batch_stride: usize,
    /// Elements from one matrix to the next.
    pub head_stride: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next: 1.
    pub col_stride: usize,
}

/// Matrices of floats to write; as subquad_tensor, but no two entries may share an element (SUBQUAD_E_OVERLAP).
///
/// What lies between the rows is not touched, yet belongs to the call: two calls at the same time must not have outputs
/// whose address ranges interleave. Split the work by batch, or by rows with all heads together.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct subquad_tensor_mut {
    /// Element (0, 0, 0, 0).
    pub data: *mut f32,
    /// Independent problems.
    pub batch: usize,
    /// Matrices per problem.
    pub heads: usize,
    /// Rows of each matrix.
    pub rows: usize,
    /// Columns of each matrix.
    pub cols: usize,
    /// Elements from one problem to the next.
    pub batch_stride: usize,
    /// Elements from one matrix to the next.
    pub head_stride: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next: 1.
    pub col_stride: usize,
}

/// A boolean mask: batch x heads x rows x cols bytes, laid out as subquad_tensor; 0 hides the key.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct subquad_mask {
    /// Element (0, 0, 0, 0).
    pub data: *const u8,
    /// Problems, or 1 for all.
    pub batch: usize,
    /// Query heads, or 1 for all.
    pub heads: usize,
    /// Queries, or 1 for all.
    pub rows: usize,
    /// Keys, or fewer: those that the mask does not have are hidden.
    pub cols: usize,
    /// Elements from one problem to the next.
    pub batch_stride: usize,
    /// Elements from one matrix to the next.
    pub head_stride: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next: 1.
    pub col_stride: usize,
}

/// Sizes of an attention call. Query head h reads key and value head h / (query_heads / kv_heads).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct subquad_shape {
    /// Independent problems.
    pub batch: usize,
    /// Heads of queries and outputs: a multiple of kv_heads.
    pub query_heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Rows of each query matrix.
    pub queries: usize,
    /// Rows of each key and value matrix.
    pub keys: usize,
    /// Columns of queries and keys.
    pub dim: usize,
    /// Columns of values and outputs.
    pub value_dim: usize,
}

/// How scores are formed and which keys a query sees. All zero: scale 1 / sqrt(dim), every query sees every key.
///
/// score = scale * q.k, then the soft-cap, then bias and slopes, then every mask; a key takes part if all masks let it.
/// Query i stands at position offset + i among the keys.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct subquad_attention {
    /// Scores are scale * q.k; 0 means 1 / sqrt(dim). Finite and not negative, or SUBQUAD_E_PARAMETER.
    pub scale: f32,
    /// Scores become cap * tanh(score / cap); 0 means no cap. Finite and not negative, or SUBQUAD_E_PARAMETER.
    pub cap: f32,
    /// Not 0: a query sees no key beyond its position.
    pub causal: i32,
    /// Not 0: the last query stands at the last valid key, and `offset` is not read.
    pub offset_to_end: i32,
    /// Keys that lie before query 0; may be negative.
    pub offset: i64,
    /// Not 0: a query sees at most `left` keys before its position. 0: `left` is not read, no limit.
    pub has_left: i32,
    /// Not 0: a query sees at most `right` keys beyond its position. 0: `right` is not read, no limit.
    pub has_right: i32,
    /// Window to the left, in keys.
    pub left: usize,
    /// Window to the right, in keys.
    pub right: usize,
    /// The first `sinks` keys are seen whatever the left window says.
    pub sinks: usize,
    /// One learned logit per query head that takes part in the softmax with value 0; finite. Of calls whose partials are
    /// merged, only one must have it. Null: none.
    pub sink_logits: *const f32,
    /// ALiBi, one slope per query head: adds -slope * |position - key|; finite. Null: none.
    pub slopes: *const f32,
    /// Boolean mask; null data: none.
    pub mask: subquad_mask,
    /// Added to the scores after the cap, minus infinity hides; sizes of 1 and short columns as for the mask. Null
    /// data: none.
    pub bias: subquad_tensor,
    /// Valid keys of each problem, at most keys (SUBQUAD_E_RANGE); those beyond are padding. Null: all.
    pub key_lengths: *const usize,
    /// Ragged sequences in one call: segment s is queries query_starts[s] to query_starts[s + 1] and keys key_starts[s]
    /// to key_starts[s + 1]. Queries see the keys of their segment, and positions count from its start.
    /// `segments` + 1 numbers, from 0 to queries, not decreasing (SUBQUAD_E_RANGE).
    pub query_starts: *const usize,
    /// `segments` + 1 numbers, from 0 to at most keys, not decreasing (SUBQUAD_E_RANGE).
    pub key_starts: *const usize,
    /// Segments; 0: one sequence, and both arrays must be null (SUBQUAD_E_SHAPE).
    pub segments: usize,
    /// Keys that are scored before their values are read; 0: the built-in choice. It changes speed and scratch, no bit
    /// of the result.
    pub key_run: usize,
    /// Back end, SUBQUAD_ISA_...; 0: the best of this machine. One that is not there: SUBQUAD_E_UNSUPPORTED.
    pub isa: i32,
}

/// Where results go. Null data: not wanted; at least one is, or SUBQUAD_E_NULL.
///
/// The first three sizes of each are (batch, query_heads, queries). Address ranges of outputs must not overlap each
/// other, any input or the scratch: SUBQUAD_E_OVERLAP.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct subquad_outputs {
    /// The attention output, value_dim columns. A query that sees no key gives zeros.
    pub out: subquad_tensor_mut,
    /// Natural log of the sum of the exponentiated scores, 1 column; minus infinity where no key is seen.
    pub lse: subquad_tensor_mut,
    /// Unfinished rows for subquad_partial_merge, SUBQUAD_PARTIAL_HEAD + value_dim columns.
    pub partials: subquad_tensor_mut,
    /// Scores of one stage, keys columns.
    pub scores: subquad_tensor_mut,
    /// Which scores: SUBQUAD_STAGE_...; not read if none are wanted. Unknown: SUBQUAD_E_PARAMETER.
    pub scores_stage: i32,
}

/// What a forward call gave, and what comes back for it. The first three sizes of each are (batch, query_heads, queries).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct subquad_upstream {
    /// The attention output, value_dim columns.
    pub out: subquad_tensor,
    /// Its gradient, value_dim columns.
    pub d_out: subquad_tensor,
    /// Log-sum-exp, 1 column; not read where there are partials. Its rounding grows with its size and goes into every
    /// probability: see imprecise_rows of the report.
    pub lse: subquad_tensor,
    /// The gradient of the log-sum-exp, 1 column. Null data: nothing depends on it.
    pub d_lse: subquad_tensor,
    /// Partials, SUBQUAD_PARTIAL_HEAD + value_dim columns, of which the first two are read: exact however far from 0 scores
    /// are. Without sink logits their columns from SUBQUAD_PARTIAL_HEAD on are the output, so that `out` may lie in them.
    /// Null data: lse is used.
    pub partials: subquad_tensor,
}

/// Where gradients go. Null: not wanted; at least one is, or SUBQUAD_E_NULL.
///
/// Each has the shape of what it is the gradient of. Address ranges must not overlap each other, any input or the scratch:
/// SUBQUAD_E_OVERLAP.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct subquad_gradients {
    /// Of the queries.
    pub q: subquad_tensor_mut,
    /// Of the keys, summed over the query heads that share them.
    pub k: subquad_tensor_mut,
    /// Of the values, likewise.
    pub v: subquad_tensor_mut,
    /// Of the rules' bias, summed along its axes of 1.
    pub bias: subquad_tensor_mut,
    /// Of the rules' sink logits, one per query head.
    pub sink_logits: *mut f32,
}

/// What happened in a call that succeeded. Not written by one that failed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct subquad_report {
    /// The back end that ran, SUBQUAD_ISA_...
    pub isa: i32,
    /// Rows that saw no key.
    pub masked_rows: usize,
    /// Rows with a non-finite score (before a soft-cap, too) or value among the keys they saw; they are NaN (one bit
    /// pattern), other rows are not touched by it.
    pub non_finite_rows: usize,
    /// Rows of a gradient whose log-sum-exp is so far from 0 (beyond 2^14) that its rounding alone may move their
    /// probabilities by more than 2^-8 of themselves. Save partials for the way back instead: see subquad_upstream.
    pub imprecise_rows: usize,
    /// Blocks of queries that were run a second time because their scores spread over more than 100 powers of two.
    pub repeated_blocks: usize,
    /// Largest absolute error of any output entry; infinity where no promise was asked for, as with every function but the
    /// ..._with_bound ones.
    pub bound: f32,
    /// Probability that the bound does not hold; 0 for exact attention.
    pub bound_failure: f32,
}
