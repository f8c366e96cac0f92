// subquad.hpp: the C++ face of subquad.h, for C++17 and later.
//
// Views that own nothing, a status that must not be dropped, and no exception and no allocation anywhere. Names and
// meanings are those of subquad.h, which is the manual; only what C++ says better is here.
#ifndef SUBQUAD_HPP
#define SUBQUAD_HPP

#include <cstddef>
#include <cstdint>

#include "subquad.h"

namespace subquad {

/// SUBQUAD_OK and SUBQUAD_E_...
enum class status : std::int32_t {
    ok = SUBQUAD_OK,
    null = SUBQUAD_E_NULL,
    misaligned = SUBQUAD_E_MISALIGNED,
    too_short = SUBQUAD_E_SHORT,
    shape = SUBQUAD_E_SHAPE,
    overflow = SUBQUAD_E_OVERFLOW,
    overlap = SUBQUAD_E_OVERLAP,
    non_finite = SUBQUAD_E_NON_FINITE,
    parameter = SUBQUAD_E_PARAMETER,
    range = SUBQUAD_E_RANGE,
    empty = SUBQUAD_E_EMPTY,
    full = SUBQUAD_E_FULL,
    singular = SUBQUAD_E_SINGULAR,
    not_converged = SUBQUAD_E_NOT_CONVERGED,
    bound_exceeded = SUBQUAD_E_BOUND_EXCEEDED,
    mismatch = SUBQUAD_E_MISMATCH,
    corrupt = SUBQUAD_E_CORRUPT,
    unsupported = SUBQUAD_E_UNSUPPORTED,
};

/// SUBQUAD_ISA_...
enum class isa : std::int32_t {
    best = SUBQUAD_ISA_BEST,
    scalar = SUBQUAD_ISA_SCALAR,
    avx2 = SUBQUAD_ISA_AVX2,
    avx512 = SUBQUAD_ISA_AVX512,
    avx2_strict = SUBQUAD_ISA_AVX2_STRICT,
    avx512_strict = SUBQUAD_ISA_AVX512_STRICT,
    neon = SUBQUAD_ISA_NEON,
    neon_strict = SUBQUAD_ISA_NEON_STRICT,
    wasm = SUBQUAD_ISA_WASM,
};

/// One line of English, never null.
inline const char *message(status s) noexcept { return subquad_status_message(static_cast<std::int32_t>(s)); }

/// Name of a back end, never null.
inline const char *name(isa i) noexcept { return subquad_isa_name(static_cast<std::int32_t>(i)); }

/// A value, or why there is none. `value` is read only where the result is true.
template <typename T>
struct [[nodiscard]] result {
    status error;
    T value;

    constexpr explicit operator bool() const noexcept { return error == status::ok; }
};

/// Numbers that lie one after the other. Made of a pointer and a length, an array, or anything with data() and size().
template <typename T>
struct span {
    T *data = nullptr;
    std::size_t size = 0;

    constexpr span() noexcept = default;
    constexpr span(T *first, std::size_t count) noexcept : data(first), size(count) {}
    template <std::size_t N>
    constexpr span(T (&array)[N]) noexcept : data(array), size(N) {}
    template <typename C, typename = decltype(static_cast<T *>(static_cast<C *>(nullptr)->data()))>
    constexpr span(C &container) noexcept : data(container.data()), size(container.size()) {}
};

/// Matrices to read, contiguous as batch x heads x rows x cols.
constexpr subquad_tensor tensor(const float *data, std::size_t batch, std::size_t heads, std::size_t rows,
                                std::size_t cols) noexcept {
    return {data, batch, heads, rows, cols, heads * rows * cols, rows * cols, cols, 1};
}

/// Matrices to write, contiguous as batch x heads x rows x cols.
constexpr subquad_tensor_mut tensor_mut(float *data, std::size_t batch, std::size_t heads, std::size_t rows,
                                        std::size_t cols) noexcept {
    return {data, batch, heads, rows, cols, heads * rows * cols, rows * cols, cols, 1};
}

/// One matrix to read.
constexpr subquad_tensor matrix(const float *data, std::size_t rows, std::size_t cols) noexcept {
    return tensor(data, 1, 1, rows, cols);
}

/// One matrix to write.
constexpr subquad_tensor_mut matrix_mut(float *data, std::size_t rows, std::size_t cols) noexcept {
    return tensor_mut(data, 1, 1, rows, cols);
}

/// No rules: what subquad_attention means when all of it is zero.
constexpr subquad_attention rules() noexcept { return {}; }

/// Whether a call also says by how much rounding can have put its results off, in the report and in the partials.
enum class bound : bool { unwanted = false, wanted = true };

/// Exact attention; the report is the value. See subquad_attention_forward and subquad_attention_forward_with_bound.
inline result<subquad_report> attention_forward(const subquad_attention &rules, const subquad_tensor &q,
                                                const subquad_tensor &k, const subquad_tensor &v,
                                                const subquad_outputs &outputs, span<unsigned char> work,
                                                bound promise = bound::unwanted) noexcept {
    result<subquad_report> r = {status::ok, {}};
    r.error = static_cast<status>(
        promise == bound::wanted
            ? subquad_attention_forward_with_bound(&rules, q, k, v, outputs, work.data, work.size, &r.value)
            : subquad_attention_forward(&rules, q, k, v, outputs, work.data, work.size, &r.value));
    return r;
}

/// Exact attention for few queries; the report is the value. See subquad_attention_decode and
/// subquad_attention_decode_with_bound.
inline result<subquad_report> attention_decode(const subquad_attention &rules, const subquad_tensor &q,
                                               const subquad_tensor &k, const subquad_tensor &v,
                                               const subquad_outputs &outputs, span<unsigned char> work,
                                               bound promise = bound::unwanted) noexcept {
    result<subquad_report> r = {status::ok, {}};
    r.error = static_cast<status>(
        promise == bound::wanted
            ? subquad_attention_decode_with_bound(&rules, q, k, v, outputs, work.data, work.size, &r.value)
            : subquad_attention_decode(&rules, q, k, v, outputs, work.data, work.size, &r.value));
    return r;
}

/// Bytes of scratch. See subquad_attention_forward_need.
inline result<std::size_t> attention_forward_need(const subquad_attention &rules, const subquad_shape &shape,
                                                  bool want_scores = false) noexcept {
    result<std::size_t> r = {status::ok, 0};
    r.error = static_cast<status>(subquad_attention_forward_need(&rules, shape, want_scores ? 1 : 0, &r.value));
    return r;
}

/// Bytes of scratch. See subquad_attention_decode_need.
inline result<std::size_t> attention_decode_need(const subquad_attention &rules, const subquad_shape &shape) noexcept {
    result<std::size_t> r = {status::ok, 0};
    r.error = static_cast<status>(subquad_attention_decode_need(&rules, shape, &r.value));
    return r;
}

/// Numbers of a partial row with so many output columns.
constexpr std::size_t partial_width(std::size_t value_dim) noexcept { return SUBQUAD_PARTIAL_HEAD + value_dim; }

/// The output columns of a partial row: the weighted mean of the values seen so far. Empty for what is no partial row.
inline span<const float> partial_out(span<const float> partial) noexcept {
    if (partial.size < SUBQUAD_PARTIAL_HEAD) return {};
    return {partial.data + SUBQUAD_PARTIAL_HEAD, partial.size - SUBQUAD_PARTIAL_HEAD};
}

/// By how much any output column of a partial row can be off; infinity where no promise was asked for.
inline result<float> partial_out_bound(span<const float> partial) noexcept {
    if (partial.size < SUBQUAD_PARTIAL_HEAD) return {status::too_short, 0};
    return {status::ok, partial.data[3]};
}

/// See subquad_partial_merge; rows of different widths are status::mismatch.
[[nodiscard]] inline status partial_merge(span<float> into, span<const float> from, float range) noexcept {
    if (into.size != from.size) return status::mismatch;
    if (into.size < SUBQUAD_PARTIAL_HEAD) return status::too_short;
    return static_cast<status>(
        subquad_partial_merge(into.data, from.data, into.size - SUBQUAD_PARTIAL_HEAD, range));
}

/// See subquad_partial_lse.
inline result<float> partial_lse(span<const float> partial) noexcept {
    result<float> r = {status::too_short, 0};
    if (partial.size >= SUBQUAD_PARTIAL_HEAD)
        r.error = static_cast<status>(subquad_partial_lse(partial.data, &r.value));
    return r;
}

/// y = exp(x); spans of different sizes are status::shape.
[[nodiscard]] inline status exp(span<const float> x, span<float> y, isa on = isa::best) noexcept {
    if (x.size != y.size) return status::shape;
    return static_cast<status>(subquad_exp(static_cast<std::int32_t>(on), x.data, y.data, x.size));
}

/// y = tanh(x); spans of different sizes are status::shape.
[[nodiscard]] inline status tanh(span<const float> x, span<float> y, isa on = isa::best) noexcept {
    if (x.size != y.size) return status::shape;
    return static_cast<status>(subquad_tanh(static_cast<std::int32_t>(on), x.data, y.data, x.size));
}

/// Softmax of a row in place. See subquad_softmax.
[[nodiscard]] inline status softmax(span<float> row, isa on = isa::best) noexcept {
    return static_cast<status>(subquad_softmax(static_cast<std::int32_t>(on), row.data, row.size));
}

/// Sum of x[i] * y[i]; spans of different sizes are status::shape.
inline result<float> dot(span<const float> x, span<const float> y, isa on = isa::best) noexcept {
    result<float> r = {status::shape, 0};
    if (x.size == y.size)
        r.error = static_cast<status>(subquad_dot(static_cast<std::int32_t>(on), x.data, y.data, x.size, &r.value));
    return r;
}

/// As dot, in double.
inline result<double> dot(span<const double> x, span<const double> y, isa on = isa::best) noexcept {
    result<double> r = {status::shape, 0};
    if (x.size == y.size)
        r.error =
            static_cast<status>(subquad_dot_f64(static_cast<std::int32_t>(on), x.data, y.data, x.size, &r.value));
    return r;
}

}  // namespace subquad

#endif  // SUBQUAD_HPP
