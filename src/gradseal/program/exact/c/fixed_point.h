/* Fixed point, sums of products, and their rounding: `digits.py` and `products.py`, bit for bit.
 *
 * An element of a vector of exponent e becomes the integer nearest to x · 2^(24 − e), in a float64. Products
 * and sums of such integers are exact while no partial sum is beyond 2^53: callers see to that. So a product
 * and a sum may be contracted, and the order does not matter. */

#ifndef GRADSEAL_FIXED_POINT_H
#define GRADSEAL_FIXED_POINT_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

/* A tile of results that is held in registers: ROWS times VECTORS vectors of LANES numbers. */
#if defined(__AVX512F__)
#define LANES 8
#define ROWS 8
#elif defined(__AVX__)
#define LANES 4
#define ROWS 4
#else
#define LANES 2
#define ROWS 4
#endif
#define VECTORS 3
#define COLUMNS (LANES * VECTORS)

typedef double lanes __attribute__((vector_size(8 * LANES)));
typedef double loose_lanes __attribute__((vector_size(8 * LANES), aligned(8), may_alias));

#define SAFE 32                        /* products whose sum is at most 2^53, whatever they are */
#define BOUND (0x1p106 * (1.0 - 0x1p-20)) /* of the product of two sums of squares that were rounded */
#define NEAREST 0x1.8p52               /* added and subtracted, it rounds to an integer */
#define SPLIT 0x1.8p78                 /* and this one to a multiple of 2^26 */
#define INFINITE 0x7F800000u
#define NAN_BITS 0x7FC00000u

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE int64_t rounded_up(int64_t a, int64_t unit) { return (a + unit - 1) / unit * unit; }

INLINE double power_of_two(int exponent) {
    uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double result;
    memcpy(&result, &bits, 8);
    return result;
}

INLINE uint32_t magnitude(const float *x) {
    uint32_t bits;
    memcpy(&bits, x, 4);
    return bits & 0x7FFFFFFFu;
}

/* The smallest e ≥ −149 with x < 2^e, from the bits of finite x ≥ 0. */
INLINE int exponent_of(uint32_t bits) {
    if (bits >> 23) return (int)(bits >> 23) - 126;
    return (bits ? 32 - __builtin_clz(bits) : 0) - 149;
}

/* What a vector is multiplied with to become integers, and what takes these back; whether it is finite. */
typedef struct {
    double into, back;
    int finite;
} Scale;

INLINE Scale scale_of(uint32_t largest) {
    Scale found = {0.0, 0.0, largest < INFINITE};
    if (found.finite) {
        int e = exponent_of(largest);
        found.into = power_of_two(24 - e);
        found.back = power_of_two(e - 24);
    }
    return found;
}

INLINE double fixed(float x, double into) { return ((double)x * into + NEAREST) - NEAREST; }

typedef int64_t wholes __attribute__((vector_size(8 * LANES)));
typedef float loose_floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* high + low rounded to odd: the next rounding, to fewer bits, is as if it were the only one. */
INLINE lanes to_odd(lanes high, lanes low) {
    lanes total = high + low, part = total - high, none = {0};
    lanes lost = (high - (total - part)) + (low - part);
    wholes bits = (wholes)total, same = (lost > none) == (total > none);
    /* Comparisons give −1 or 0: a step is 1 away from zero where the signs are the same, else −1. */
    return (lanes)(bits + ((-2 * same - 1) & (lost != none) & ((bits & 1) - 1)));
}

/* LANES sums of which the high parts are apart, rounded to float32. */
INLINE void round_parts(const double *sum, const double *high, const double *low, lanes back, float *out) {
    lanes own = *(const loose_lanes *)sum, head = (own + SPLIT) - SPLIT, rest = own - head;
    lanes total = to_odd(*(const loose_lanes *)high + head, *(const loose_lanes *)low + rest) * back;
    *(loose_floats *)out = __builtin_convertvector(total, loose_floats) + 0.0f;
}

/* −0 + 0 is +0. */
INLINE float rounded(double total, double back) { return (float)(total * back) + 0.0f; }

/* Moves a block's sum, at most 2^53, into sums of multiples of 2^26 and of what remains. */
INLINE void flush(double *restrict sum, double *restrict high, double *restrict low, int64_t count, int first) {
    for (int64_t i = 0; i < count; i++) {
        double head = (sum[i] + SPLIT) - SPLIT;
        double rest = sum[i] - head;
        high[i] = first ? head : high[i] + head;
        low[i] = first ? rest : low[i] + rest;
    }
}

INLINE void fill_nan(float *out, int64_t count, int64_t step) {
    uint32_t bits = NAN_BITS;
    for (int64_t i = 0; i < count; i++) memcpy(out + i * step, &bits, 4);
}

/* Memory that a thread keeps for its next call; NULL where there is none. */
static _Thread_local char *kept;
static _Thread_local size_t kept_size;

static char *scratch(size_t size) {
    if (size > kept_size) {
        free(kept);
        kept_size = 0;
        size = (size + 4095) / 4096 * 4096;
        kept = aligned_alloc(64, size);
        if (kept == NULL) return NULL;
        kept_size = size;
    }
    return kept;
}

INLINE char *taken(char **from, size_t size) {
    char *found = *from;
    *from += (size + 63) / 64 * 64;
    return found;
}

/* What becomes of the sums that a tile finds in memory. */
enum { REPLACE, ADD, BEGIN_PARTS, ADD_PARTS };

/* The products of ROWS by COLUMNS of packed operands into a tile: `b` is a panel of COLUMNS for each step, or,
 * with `offsets`, wherever these say. The sums there are replaced, added to, or moved to the high and low parts
 * before they are replaced; BEGIN_PARTS is for the first time that they are. */
INLINE void tile(int64_t count, const double *restrict a, const double *restrict b, const int64_t *restrict offsets,
                 double *restrict c, double *restrict high, double *restrict low, int64_t row_length, int way) {
    lanes sum[ROWS][VECTORS] = {{{0}}};
#pragma GCC unroll 4
    for (int64_t k = 0; k < count; k++) {
        const loose_lanes *from = (const loose_lanes *)(offsets ? b + offsets[k] : b + k * COLUMNS);
        lanes right[VECTORS];
#pragma GCC unroll 8
        for (int j = 0; j < VECTORS; j++) right[j] = from[j];
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
#pragma GCC unroll 8
            for (int j = 0; j < VECTORS; j++) sum[i][j] += a[k * ROWS + i] * right[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) {
#pragma GCC unroll 8
        for (int j = 0; j < VECTORS; j++) {
            int64_t at = i * row_length + j * LANES;
            loose_lanes *to = (loose_lanes *)(c + at);
            if (way == ADD) sum[i][j] += *to;
            if (way == BEGIN_PARTS || way == ADD_PARTS) {
                loose_lanes *to_high = (loose_lanes *)(high + at), *to_low = (loose_lanes *)(low + at);
                lanes own = *to, head = (own + SPLIT) - SPLIT, rest = own - head;
                if (way == ADD_PARTS) {
                    head += *to_high;
                    rest += *to_low;
                }
                *to_high = head;
                *to_low = rest;
            }
            *to = sum[i][j];
        }
    }
}

/* The largest sum of squares of a packed panel's vectors in `count` steps; not rounded for count ≤ 32. */
INLINE double squares(const double *panel, int64_t count, int width) {
    double largest = 0.0;
    for (int w = 0; w < width; w += LANES) {
        lanes sum[4] = {{0}};
        int64_t k = 0;
        for (; k + 4 <= count; k += 4)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                lanes x = *(const loose_lanes *)(panel + (k + i) * width + w);
                sum[i] += x * x;
            }
        for (; k < count; k++) {
            lanes x = *(const loose_lanes *)(panel + k * width + w);
            sum[0] += x * x;
        }
        sum[0] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        for (int i = 0; i < LANES; i++) largest = sum[0][i] > largest ? sum[0][i] : largest;
    }
    return largest;
}

#endif
