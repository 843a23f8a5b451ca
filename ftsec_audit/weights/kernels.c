/* Inner loops for which torch takes several passes or many calls: bfloat16 is widened and used at once, the spectra
 * of several modules are found side by side.
 *
 * Written with vectors of the compiler (GCC, Clang), which makes one version for each kind of CPU; one operation
 * is named where it has no words for it. kernels.py answers for every pointer and size; nothing is read or
 * written beyond them. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>
#define EVERY_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define PAIRING_CPU __attribute__((target("avx512f,avx512bw,avx512bf16")))
#define PAIRS_ARE_MULTIPLIED() __builtin_cpu_supports("avx512bf16")
#else
#define EVERY_CPU
#endif
#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16, AROUND = LANES / 2 + 1, TILE = 4, RANKS = 128, HELD = 4096, STRIP = 512, PIECE = 512 };

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef uint32_t pairs __attribute__((vector_size(4 * LANES), aligned(2), may_alias)); /* of halves, as they lie */

#define LONGER(from) __builtin_convertvector(*(const halves *)(from), words)
/* A bfloat16 is the upper half of a float. */
#define WIDENED(from) ((floats)(LONGER(from) << 16))

INLINE float widened_one(uint16_t half) {
    uint32_t word = (uint32_t)half << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

INLINE float total(floats sums) {
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++) sums[lane] += sums[lane + half];
    return sums[0];
}

/* What is right of the diagonal, also left of it. */
INLINE void mirror(float *square, ptrdiff_t size) {
    for (ptrdiff_t i = 1; i < size; i++)
        for (ptrdiff_t j = 0; j < i; j++) square[i * size + j] = square[j * size + i];
}

#include "gram.inc"
#ifdef PAIRING_CPU
#define PAIRED
#include "gram.inc"
#else
#define PAIRS_ARE_MULTIPLIED() 0
#define add_grams_paired add_grams_widened
#endif

void add_grams(const uint16_t *memory, const int64_t *factors, ptrdiff_t n, ptrdiff_t rank, float *sums,
               uint32_t *held, float *tiles) {
    (PAIRS_ARE_MULTIPLIED() ? add_grams_paired : add_grams_widened)(memory, factors, n, rank, sums, held, tiles);
}

#include "spectra.inc"

/* after − before, count values of each. */
EVERY_CPU void difference(const uint16_t *after, const uint16_t *before, ptrdiff_t count, float *out) {
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES) *(floats *)(out + i) = WIDENED(after + i) - WIDENED(before + i);
    for (; i < count; i++) out[i] = widened_one(after[i]) - widened_one(before[i]);
}

/* Of after − before (or after, where before is NULL), (rows, columns): Σx² of every row, whether any entry
 * of it is not zero, Σx⁴ into sums[0], and Σ before² into sums[1]; Σx² of every column is added to
 * by_column, where that is not NULL. */
EVERY_CPU void moments(const uint16_t *after, const uint16_t *before, ptrdiff_t rows, ptrdiff_t columns,
                       double *by_row, uint8_t *changed, float *by_column, double *sums) {
    double fourth = 0, base = 0;
    for (ptrdiff_t row = 0; row < rows; row++) {
        double energy = 0;
        words any = {0};
        for (ptrdiff_t at = 0; at < columns; at += PIECE) {
            ptrdiff_t count = columns - at < PIECE ? columns - at : PIECE, i = 0;
            floats second = {0}, higher = {0}, old = {0};
            while (i < count) {
                floats x, y = {0}, square;
                ptrdiff_t some = count - i < LANES ? count - i : LANES;
                if (some == LANES) {
                    x = WIDENED(after + at + i);
                    if (before) y = WIDENED(before + at + i);
                } else {
                    uint16_t last[2][LANES] = {{0}};
                    memcpy(last[0], after + at + i, sizeof(uint16_t) * some);
                    x = WIDENED(last[0]);
                    if (before) memcpy(last[1], before + at + i, sizeof(uint16_t) * some);
                    y = WIDENED(last[1]);
                }
                x -= y;
                any |= (words)(x != 0);
                square = x * x;
                second += square;
                higher += square * square;
                old += y * y;
                if (by_column) {
                    if (some == LANES) *(floats *)(by_column + at + i) += square;
                    else for (ptrdiff_t k = 0; k < some; k++) by_column[at + i + k] += square[k];
                }
                i += LANES;
            }
            for (int lane = 0; lane < LANES; lane++) {
                energy += second[lane];
                fourth += higher[lane];
                base += old[lane];
            }
        }
        uint32_t found = 0;
        for (int lane = 0; lane < LANES; lane++) found |= any[lane];
        by_row[row] = energy;
        changed[row] = found != 0;
        after += columns;
        if (before) before += columns;
    }
    sums[0] = fourth;
    sums[1] = base;
}
