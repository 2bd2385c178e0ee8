/* Exact sums along dimensions and into places, over arrays; see sums.h. */

#include "sums.h"

#define WIDEST 512
#define FOLDED 128

/* A matrix (…, a, b, c) that is summed along a and c; `means` has an element for each sum, `factor` the shape of x. */
typedef struct {
    const float *x, *factor, *means;
    float *y;
    int64_t a, b, c;
    int32_t divided;
} Problem;

/* Columns side by side: `rows` rows of `width` elements, `stride` apart, the last of them of `last` only.
 * Columns that are `period` apart are one. */
typedef struct {
    int64_t rows, stride, width, last, period;
} Columns;

INLINE float element(int kind, Problem own, int64_t place, const float *means, int64_t j) {
    return term(kind, own.x[place], kind >= AWAY ? means[j] : 0.0f, kind == AWAY_TIMES ? own.factor[place] : 0.0f);
}

INLINE void largest_of_columns(int kind, Problem own, Columns set, const float *restrict means,
                               int32_t *restrict largest) {
    for (int64_t j = 0; j < set.width; j++) largest[j] = 0;
    for (int64_t i = 0; i < set.rows; i++) {
        int64_t width = i == set.rows - 1 ? set.last : set.width;
        for (int64_t j = 0; j < width; j++)
            largest[j] = max32(largest[j], magnitude(element(kind, own, i * set.stride + j, means, j)));
    }
    for (int64_t j = set.period; j < set.width; j++)
        largest[j % set.period] = max32(largest[j % set.period], largest[j]);
}

INLINE void total_of_columns(int kind, Problem own, Columns set, const float *restrict means,
                             const double *restrict scale, uint64_t *restrict total) {
    for (int64_t j = 0; j < set.width; j++)
        total[j] = ROUNDER_BITS * (uint64_t)(j < set.last ? -set.rows : 1 - set.rows);
    for (int64_t i = 0; i < set.rows; i++) {
        int64_t width = i == set.rows - 1 ? set.last : set.width;
        for (int64_t j = 0; j < width; j++)
            total[j] += shifted_bits(element(kind, own, i * set.stride + j, means, j), scale[j]);
    }
    for (int64_t j = set.period; j < set.width; j++) total[j % set.period] += total[j];
}

INLINE float sum_at(int kind, Problem own, int64_t j) {
    float mean = kind >= AWAY ? own.means[j] : 0.0f;
    return sum_of(kind, own.x + j * own.c, own.factor + j * own.c, mean, own.a, own.b * own.c, own.c, own.divided);
}

/* The columns of a set whose first is the problem's first. */
INLINE void sums_of_columns(int kind, Problem own, Columns set) {
    int32_t largest[WIDEST];
    double scale[WIDEST];
    uint64_t total[WIDEST];
    float means[WIDEST];
    int64_t bits = bits_for(own.a);
    if (kind >= AWAY)
        for (int64_t j = 0; j < set.width; j++) means[j] = own.means[j % set.period];
    largest_of_columns(kind, own, set, means, largest);
    for (int64_t j = 0; j < set.period; j++) scale[j] = power_of_two(bits - exponent_of(largest[j]));
    for (int64_t j = set.period; j < set.width; j++) scale[j] = scale[j - set.period];
    total_of_columns(kind, own, set, means, scale, total);
    for (int64_t j = 0; j < set.period; j++) {
        int64_t shift = bits - exponent_of(largest[j]);
        own.y[j] = largest[j] < INFINITE ? finished((double)(int64_t)total[j], shift, own.a, own.divided)
                                         : sum_at(kind, own, j);
    }
}

/* Sums of one element or two. */
INLINE void sums_of_pairs(int kind, Problem own, int64_t start, int64_t end) {
    for (int64_t j = start; j < end; j++) {
        float one = element(kind, own, j, own.means, j);
        float other = element(kind, own, j + (own.a - 1) * own.b, own.means, j);
        int64_t shift = bits_for(own.a) - exponent_of(max32(magnitude(one), magnitude(other)));
        double scale = power_of_two(shift), rest = nearest((double)other * scale);
        rest = own.a == 1 ? 0.0 : rest;
        own.y[j] = finished(nearest((double)one * scale) + rest, shift, own.a, own.divided);
    }
}

/* The sums from start to below end of one matrix whose last dimension has size 1. */
INLINE void sums_down(int kind, Problem own, int64_t start, int64_t end) {
    if (own.a < MANY) {
        sums_of_pairs(kind, own, start, end);
    } else if (end - start == own.b && own.b <= FOLDED) {
        int64_t wide = WIDEST / own.b * own.b, all = own.a * own.b;
        wide = wide < all ? wide : all;
        int64_t rows = (all + wide - 1) / wide;
        sums_of_columns(kind, own, (Columns){rows, wide, wide, all - (rows - 1) * wide, own.b});
    } else {
        for (int64_t j = start; j < end; j += WIDEST) {
            int64_t part = end - j < WIDEST ? end - j : WIDEST;
            Problem at = {own.x + j, own.factor + j, own.means + j, own.y + j, own.a, own.b, own.c, own.divided};
            sums_of_columns(kind, at, (Columns){own.a, own.b, part, part, part});
        }
    }
}

INLINE void sums(int kind, Problem own, int64_t start, int64_t end) {
    int64_t size = own.a * own.b * own.c;
    while (start < end) {
        int64_t matrix = start / own.b, first = start % own.b;
        int64_t stop = (matrix + 1) * own.b < end ? own.b : end - matrix * own.b;
        Problem at = own;
        at.x += matrix * size, at.factor += matrix * size, at.means += matrix * own.b, at.y += matrix * own.b;
        if (own.c == 1)
            sums_down(kind, at, first, stop);
        else
            for (int64_t j = first; j < stop; j++) at.y[j] = sum_at(kind, at, j);
        start = matrix * own.b + stop;
    }
}

/* Sums, or means where `divided` is set, along the second and fourth dimension of (…, a, b, c): those from start
 * to below end. The kind says what of, and whether `means` and `factor` are used. */
EXPORT void gradseal_sums(int32_t kind, const float *x, const float *factor, const float *means, float *y,
                          int64_t a, int64_t b, int64_t c, int64_t start, int64_t end, int32_t divided) {
    Problem own = {x, factor, means, y, a, b, c, divided};
    switch (kind) {
    case PLAIN: sums(PLAIN, own, start, end); break;
    case SQUARE: sums(SQUARE, own, start, end); break;
    case AWAY: sums(AWAY, own, start, end); break;
    case AWAY_SQUARE: sums(AWAY_SQUARE, own, start, end); break;
    case AWAY_TIMES: sums(AWAY_TIMES, own, start, end); break;
    }
}

EXPORT int32_t gradseal_largest(const float *x, int64_t count) { return largest_of(PLAIN, x, x, 0.0f, count); }

/* The integers of part of a sum of `count` elements, added up; for count ≥ 3 and what is finite. */
EXPORT int64_t gradseal_part_of_sum(const float *x, int64_t length, int64_t count, int32_t largest) {
    return (int64_t)total_of(PLAIN, x, x, 0.0f, length, power_of_two(bits_for(count) - exponent_of(largest)));
}

EXPORT void gradseal_whole_sum(float *y, int64_t total, int64_t count, int32_t largest, int32_t divided) {
    *y = finished((double)total, bits_for(count) - exponent_of(largest), count, divided);
}

INLINE void add_row(double *restrict sums, const float *restrict x, int64_t width, double scale) {
    for (int64_t i = 0; i < width; i++) sums[i] += nearest((double)x[i] * scale);
}

static int32_t add_slices(double *sums, const float *x, const int64_t *index, int64_t length, int64_t width,
                          int64_t size, double scale) {
    for (int64_t i = 0; i < length; i++) {
        if ((uint64_t)index[i] >= (uint64_t)size) return 0;
        add_row(sums + index[i] * width, x + i * width, width, scale);
    }
    return 1;
}

static int32_t add_each(double *sums, const float *x, const int64_t *index, int64_t length, int64_t width,
                        int64_t size, double scale) {
    for (int64_t i = 0; i < length; i++)
        for (int64_t j = 0; j < width; j++) {
            int64_t to = index[i * width + j];
            if ((uint64_t)to >= (uint64_t)size) return 0;
            sums[to * width + j] += nearest((double)x[i * width + j] * scale);
        }
    return 1;
}

/* Matrices x (…, length, width), those from start to below end, into y (…, size, width) at index (length), or
 * (…, length, width) where `each` is set. `sums` has room for (size, width). Gives 0, and has not added all, if
 * an index is not below `size`. */
EXPORT int32_t gradseal_add_at(const float *x, const int64_t *index, double *sums, float *restrict y,
                               int64_t length, int64_t width, int64_t size, int32_t largest, int32_t each,
                               int64_t start, int64_t end) {
    int64_t shift = bits_for(length) - exponent_of(largest), places = size * width;
    double scale = power_of_two(shift), unit = power_of_two(-shift);
    for (int64_t o = start; o < end; o++) {
        const float *own = x + o * length * width;
        memset(sums, 0, (size_t)places * sizeof(double));
        if (each ? !add_each(sums, own, index + o * length * width, length, width, size, scale)
                 : !add_slices(sums, own, index, length, width, size, scale))
            return 0;
        for (int64_t i = 0; i < places; i++) y[o * places + i] = settled(sums[i] * unit);
    }
    return 1;
}
