// Attention from C++: grouped heads, causal, the keys in two halves whose partial rows are merged, and the last query
// alone as a decoder has it. All three must be what the formula in double says, up to what they promise themselves.
#include <array>
#include <cmath>
#include <cstdio>
#include <vector>

#include "subquad.hpp"

namespace {

constexpr std::size_t heads = 4, kv_heads = 2, queries = 7, keys = 33, past = keys - queries, dim = 16, value_dim = 12;
constexpr std::size_t half = 20, width = subquad::partial_width(value_dim);

std::vector<float> numbers(std::size_t n, std::uint32_t state) {
    std::vector<float> x(n);
    for (float &value : x) {
        state = state * 1664525u + 1013904223u;
        value = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
    }
    return x;
}

// One output number by the formula: query i sees keys up to past + i.
double expected(const std::vector<float> &q, const std::vector<float> &k, const std::vector<float> &v, std::size_t h,
                std::size_t i, std::size_t c) {
    double sum = 0, mean = 0;
    for (std::size_t j = 0, kv = h / (heads / kv_heads); j <= past + i; j++) {
        double score = 0;
        for (std::size_t e = 0; e < dim; e++)
            score += double(q[(h * queries + i) * dim + e]) * double(k[(kv * keys + j) * dim + e]);
        const double weight = std::exp(score / std::sqrt(double(dim)));
        sum += weight;
        mean += weight * double(v[(kv * keys + j) * value_dim + c]);
    }
    return mean / sum;
}

}  // namespace

int main() {
    const auto q = numbers(heads * queries * dim, 1), k = numbers(kv_heads * keys * dim, 2);
    const auto v = numbers(kv_heads * keys * value_dim, 3);
    std::vector<float> out(heads * queries * value_dim);
    std::array<std::vector<float>, 2> part{std::vector<float>(heads * queries * width), std::vector<float>(heads * queries * width)};

    auto rules = subquad::rules();
    rules.causal = 1;
    rules.offset = std::int64_t(past);
    const auto need = subquad::attention_forward_need(rules, {1, heads, kv_heads, queries, keys, dim, value_dim});
    if (!need) return 2;
    std::vector<unsigned char> work(need.value);
    const auto run = [&](std::size_t from, std::size_t to, const subquad_outputs &outputs) {
        auto tk = subquad::tensor(k.data() + from * dim, 1, kv_heads, keys, dim);
        auto tv = subquad::tensor(v.data() + from * value_dim, 1, kv_heads, keys, value_dim);
        tk.rows = tv.rows = to - from;  // the strides stay those of all keys
        rules.offset = std::int64_t(past) - std::int64_t(from);
        return subquad::attention_forward(rules, subquad::tensor(q.data(), 1, heads, queries, dim), tk, tv, outputs, work,
                                          subquad::bound::wanted);
    };
    subquad_outputs whole{}, first{}, second{};
    whole.out = subquad::tensor_mut(out.data(), 1, heads, queries, value_dim);
    first.partials = subquad::tensor_mut(part[0].data(), 1, heads, queries, width);
    second.partials = subquad::tensor_mut(part[1].data(), 1, heads, queries, width);
    const auto report = run(0, keys, whole);
    if (!report || !run(0, half, first) || !run(half, keys, second)) return 2;

    // One query per head, the last: it sees every key. Its rows are as far apart as in the whole tensor.
    auto last = subquad::tensor(q.data() + (queries - 1) * dim, 1, heads, queries, dim);
    last.rows = 1;
    std::vector<float> token(heads * value_dim);
    subquad_outputs tokens{};
    tokens.out = subquad::tensor_mut(token.data(), 1, heads, 1, value_dim);
    const auto decode_need = subquad::attention_decode_need(subquad::rules(), {1, heads, kv_heads, 1, keys, dim, value_dim});
    if (!decode_need) return 2;
    work.resize(decode_need.value);
    const auto decoded = subquad::attention_decode(
        subquad::rules(), last, subquad::tensor(k.data(), 1, kv_heads, keys, dim),
        subquad::tensor(v.data(), 1, kv_heads, keys, value_dim), tokens, work, subquad::bound::wanted);
    if (!decoded) return 2;

    // What double itself may be off by is a billionth of these bounds.
    bool kept = true;
    double worst = 0, worst_merged = 0, worst_token = 0, loosest = 0;
    for (std::size_t row = 0; row < heads * queries; row++) {
        const subquad::span<float> into(&part[0][row * width], width);
        const subquad::span<const float> other(&part[1][row * width], width);
        // No two values are more than 2 apart.
        if (subquad::partial_merge(into, other, 2) != subquad::status::ok) return 2;
        const auto merged = subquad::partial_out(subquad::span<const float>(into.data, into.size));
        const auto promise = subquad::partial_out_bound(subquad::span<const float>(into.data, into.size));
        if (!promise) return 2;
        loosest = std::fmax(loosest, double(promise.value));
        for (std::size_t c = 0; c < value_dim; c++) {
            const double want = expected(q, k, v, row / queries, row % queries, c);
            worst = std::fmax(worst, std::fabs(want - double(out[row * value_dim + c])));
            const double off = std::fabs(want - double(merged.data[c]));
            worst_merged = std::fmax(worst_merged, off);
            kept = kept && off <= double(promise.value);
            if (row % queries == queries - 1)
                worst_token = std::fmax(worst_token, std::fabs(want - double(token[row / queries * value_dim + c])));
        }
    }
    const auto wrong = subquad::dot(subquad::span<const float>(q), subquad::span<const float>(k));
    std::printf("subquad %s, %s: error %.1e of %.1e promised, merged %.1e of %.1e, decoded %.1e of %.1e; dot of different "
                "lengths: %s\n",
                subquad_version(), subquad::name(static_cast<subquad::isa>(report.value.isa)), worst,
                double(report.value.bound), worst_merged, loosest, worst_token, double(decoded.value.bound),
                subquad::message(wrong.error));
    kept = kept && worst <= double(report.value.bound) && worst_token <= double(decoded.value.bound);
    // |v| <= 1: a bound of 1 would say nothing.
    return kept && loosest < 1e-3 && !wrong ? 0 : 1;
}
