/* Products of matrices: `products.py`, bit for bit.
 *
 * As in fast libraries (Goto & van de Geijn 2008; BLIS, Van Zee & van de Geijn 2015), blocks of both operands
 * are packed into panels that fit the caches, here as integers, and tiles of the result are held in registers.
 * A sum is cut where a partial sum could exceed 2^53: by Cauchy and Schwarz, at most the product of the norms.
 * The pieces are added as high and low parts, exactly. Order here: scales, packing, one matrix, the loop. */

#include "fixed_point.h"

#define DEPTH 256     /* products of a packed block */
#define BAND 96       /* rows of a packed block of the left operand */
#define ROWS_HELD 960 /* rows and columns of results that are summed at a time */
#define COLUMNS_HELD 1008
#define PIECES (DEPTH / SAFE)

/* Vectors of a matrix: element k of vector v is at x[v * vector + k * step]. */
typedef struct {
    const float *x;
    int64_t vectors, length, vector, step;
} Side;

/* The largest magnitudes of the vectors. */
static void largest(Side s, uint32_t *restrict found) {
    memset(found, 0, sizeof(uint32_t) * (size_t)s.vectors);
    if (s.vector == 1 && s.vectors > 1) {
        for (int64_t k = 0; k < s.length; k++) {
            const float *row = s.x + k * s.step;
            for (int64_t v = 0; v < s.vectors; v++) {
                uint32_t own = magnitude(row + v);
                found[v] = own > found[v] ? own : found[v];
            }
        }
        return;
    }
    for (int64_t v = 0; v < s.vectors; v++) {
        const float *row = s.x + v * s.vector;
        uint32_t most = 0;
        if (s.step == 1) {
            for (int64_t k = 0; k < s.length; k++) {
                uint32_t own = magnitude(row + k);
                most = own > most ? own : most;
            }
        } else {
            for (int64_t k = 0; k < s.length; k++) {
                uint32_t own = magnitude(row + k * s.step);
                most = own > most ? own : most;
            }
        }
        found[v] = most;
    }
}

/* Whether all vectors are finite. */
static int scales(Side s, uint32_t *restrict bits, double *restrict into, double *restrict back) {
    int finite = 1;
    largest(s, bits);
    for (int64_t v = 0; v < s.vectors; v++) {
        Scale own = scale_of(bits[v]);
        into[v] = own.into;
        back[v] = own.back;
        finite &= own.finite;
    }
    return finite;
}

typedef double four __attribute__((vector_size(32)));
typedef float loose_four __attribute__((vector_size(16), aligned(4), may_alias));
typedef double stored_four __attribute__((vector_size(32), aligned(8), may_alias));

#if defined(__clang__)
#define PICKED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int64_t picks __attribute__((vector_size(32)));
#define PICKED(a, b, ...) __builtin_shuffle(a, b, (picks){__VA_ARGS__})
#endif

/* Four vectors that lie along memory, four steps of each, into a panel. */
INLINE void turned(const float *x, int64_t vector, const double *into, double *panel, int width) {
    four r[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        four wide = __builtin_convertvector(*(const loose_four *)(x + i * vector), four);
        r[i] = (wide * into[i] + NEAREST) - NEAREST;
    }
    four a = PICKED(r[0], r[1], 0, 4, 2, 6), b = PICKED(r[0], r[1], 1, 5, 3, 7);
    four c = PICKED(r[2], r[3], 0, 4, 2, 6), d = PICKED(r[2], r[3], 1, 5, 3, 7);
    *(stored_four *)(panel) = PICKED(a, c, 0, 1, 4, 5);
    *(stored_four *)(panel + width) = PICKED(b, d, 0, 1, 4, 5);
    *(stored_four *)(panel + 2 * width) = PICKED(a, c, 2, 3, 6, 7);
    *(stored_four *)(panel + 3 * width) = PICKED(b, d, 2, 3, 6, 7);
}

INLINE void plain(Side s, int64_t v, int64_t start, int64_t count, const double *into, double *panel, int width,
                  int from, int to) {
    for (int64_t k = start; k < count; k++)
        for (int w = from; w < to; w++)
            panel[k * width + w] = w + v < s.vectors ? fixed(s.x[(v + w) * s.vector + k * s.step], into[v + w]) : 0.0;
}

/* A panel of `width` vectors from `v` on, in steps `k0` to `k0 + count`; `s` has at least one of them. */
INLINE void pack_panel(Side s, int64_t v, int64_t k0, int64_t count, const double *into, double *panel, int width) {
    s.x += k0 * s.step;
    if (s.vector == 1 && v + width <= s.vectors) {
        for (int64_t k = 0; k < count; k++) {
            const float *row = s.x + v + k * s.step;
            for (int w = 0; w < width; w++) panel[k * width + w] = fixed(row[w], into[v + w]);
        }
        return;
    }
    for (int w = 0; w < width; w += 4) {
        int from = width - w < 4 ? width - w : 4;
        int64_t k = 0;
        if (s.step == 1 && from == 4 && v + w + 4 <= s.vectors)
            for (; k + 4 <= count; k += 4)
                turned(s.x + (v + w) * s.vector + k, s.vector, into + v + w, panel + k * width + w, width);
        plain(s, v, k, count, into, panel, width, w, w + from);
    }
}

/* Panels of the vectors from v0 to v1; in `norms`, for each 32 steps, the largest sum of squares. */
INLINE void pack(Side s, int64_t v0, int64_t v1, int64_t k0, int64_t count, const double *into, int finite,
                 double *panels, int width, double *norms) {
    for (int i = 0; i < PIECES; i++) norms[i] = 0.0;
    for (int64_t v = v0; v < v1; v += width, panels += count * width) {
        pack_panel(s, v, k0, count, into, panels, width);
        if (!finite)
            for (int w = 0; w < width && v + w < s.vectors; w++)
                if (into[v + w] == 0.0)
                    for (int64_t k = 0; k < count; k++) panels[k * width + w] = 0.0;
        for (int64_t k = 0, i = 0; k < count; k += SAFE, i++) {
            double own = squares(panels + k * width, least(SAFE, count - k), width);
            norms[i] = own > norms[i] ? own : norms[i];
        }
    }
}

static void pack_rows(Side s, int64_t v0, int64_t v1, int64_t k0, int64_t count, const double *into, int finite,
                      double *panels, double *norms) {
    pack(s, v0, v1, k0, count, into, finite, panels, ROWS, norms);
}

static void pack_columns(Side s, int64_t v0, int64_t v1, int64_t k0, int64_t count, const double *into, int finite,
                         double *panels, double *norms) {
    pack(s, v0, v1, k0, count, into, finite, panels, COLUMNS, norms);
}

/* Steps k0 to k1 of packed blocks of `depth` steps, for a band of results: panels of COLUMNS, each of which has
 * its rows one after the other. */
INLINE void multiply_so(const double *a, const double *b, int64_t rows, int64_t columns, int64_t depth, int64_t k0,
                        int64_t k1, double *c, double *high, double *low, int way) {
    for (int64_t j = 0, at = 0; j < columns; j += COLUMNS)
        for (int64_t i = 0; i < rows; i += ROWS, at += ROWS * COLUMNS)
            tile(k1 - k0, a + i * depth + k0 * ROWS, b + j * depth + k0 * COLUMNS, NULL, c + at, high + at, low + at,
                 COLUMNS, way);
}

static void multiply(const double *a, const double *b, int64_t rows, int64_t columns, int64_t depth, int64_t k0,
                     int64_t k1, double *c, double *high, double *low, int way) {
    if (way == REPLACE) multiply_so(a, b, rows, columns, depth, k0, k1, c, high, low, REPLACE);
    if (way == ADD) multiply_so(a, b, rows, columns, depth, k0, k1, c, high, low, ADD);
    if (way == BEGIN_PARTS) multiply_so(a, b, rows, columns, depth, k0, k1, c, high, low, BEGIN_PARTS);
    if (way == ADD_PARTS) multiply_so(a, b, rows, columns, depth, k0, k1, c, high, low, ADD_PARTS);
}

/* What is known of a band's sums: those of the squares; whether there are any; whether parts were moved. */
typedef struct {
    double rows, columns;
    int begun, parted;
} Band;

typedef struct {
    double *into_a, *back_a, *into_b, *back_b, *a, *b, *sum, *high, *low;
    uint32_t *bits;
} Space;

/* A row's part of a panel, `count` results from its sums. */
INLINE void round_part(const double *restrict sum, const double *restrict high, const double *restrict low, double row,
                       const double *restrict back, float *restrict out, int64_t count) {
    if (high == NULL)
        for (int64_t j = 0; j < count; j++) out[j] = rounded(sum[j], row * back[j]);
    else
        for (int64_t j = 0; j < count; j += LANES) {
            lanes scale = row * *(const loose_lanes *)(back + j);
            float found[LANES];
            /* A panel has sums for all lanes, and `back` has space for them. */
            round_parts(sum + j, high + j, low + j, scale, count - j < LANES ? found : out + j);
            for (int64_t l = j; count - j < LANES && l < count; l++) out[l] = found[l - j];
        }
}

/* `rows` of a band's results, from i, and all of its columns, from j0, to where they belong. */
INLINE void round_band(const Space *s, int64_t start, int parted, int64_t i, int64_t rows, int64_t j0, int64_t columns,
                       float *out, int64_t row_length) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < columns; j += COLUMNS) {
            int64_t at = start + j * rounded_up(rows, ROWS) + r * COLUMNS;
            const double *high = parted ? s->high + at : NULL, *low = parted ? s->low + at : NULL;
            float *to = out + (i + r) * row_length + j0 + j;
            if (columns - j >= COLUMNS)
                round_part(s->sum + at, high, low, s->back_a[i + r], s->back_b + j0 + j, to, COLUMNS);
            else
                round_part(s->sum + at, high, low, s->back_a[i + r], s->back_b + j0 + j, to, columns - j);
        }
}

/* Steps k0 to k1 of a block of packed columns times a band of packed rows, `a` and `b` their sums of squares. */
static void add_steps(Space *s, Band *band, double a, double b, int64_t rows, int64_t columns, int64_t depth,
                      int64_t k0, int64_t k1, int64_t at) {
    int way = REPLACE;
    if (band->begun) {
        way = ADD;
        if ((band->rows + a) * (band->columns + b) > BOUND) {
            way = band->parted ? ADD_PARTS : BEGIN_PARTS;
            *band = (Band){.parted = 1};
        }
    }
    multiply(s->a, s->b, rows, columns, depth, k0, k1, s->sum + at, s->high + at, s->low + at, way);
    band->begun = 1;
    band->rows += a;
    band->columns += b;
}

/* A block, whole where its sums are safe, else in the longest pieces that are. */
static void add_block(Space *s, Band *band, const double *norms_a, const double *norms_b, int64_t rows,
                      int64_t columns, int64_t depth, int64_t at) {
    double a = 0.0, b = 0.0;
    int64_t k0 = 0;
    for (int64_t k = 0, i = 0; k < depth; k += SAFE, i++) {
        if (k > k0 && (a + norms_a[i]) * (b + norms_b[i]) > BOUND) {
            add_steps(s, band, a, b, rows, columns, depth, k0, k, at);
            k0 = k;
            a = b = 0.0;
        }
        a += norms_a[i];
        b += norms_b[i];
    }
    add_steps(s, band, a, b, rows, columns, depth, k0, depth, at);
}

static void one_matrix(Side a, Side b, float *out, Space *s) {
    int finite_a = scales(a, s->bits, s->into_a, s->back_a), finite_b = scales(b, s->bits, s->into_b, s->back_b);
    double norms_a[PIECES], norms_b[PIECES];
    Band bands[ROWS_HELD / BAND];
    for (int64_t i0 = 0; i0 < a.vectors; i0 += ROWS_HELD) {
        int64_t i1 = least(i0 + ROWS_HELD, a.vectors);
        for (int64_t j0 = 0; j0 < b.vectors; j0 += COLUMNS_HELD) {
            int64_t j1 = least(j0 + COLUMNS_HELD, b.vectors), width = rounded_up(j1 - j0, COLUMNS);
            memset(bands, 0, sizeof bands);
            for (int64_t k = 0; k < a.length; k += DEPTH) {
                int64_t depth = least(DEPTH, a.length - k);
                pack_columns(b, j0, j1, k, depth, s->into_b, finite_b, s->b, norms_b);
                for (int64_t i = i0, n = 0; i < i1; i += BAND, n++) {
                    int64_t end = least(i + BAND, i1);
                    pack_rows(a, i, end, k, depth, s->into_a, finite_a, s->a, norms_a);
                    add_block(s, &bands[n], norms_a, norms_b, rounded_up(end - i, ROWS), j1 - j0, depth,
                              (i - i0) * width);
                }
            }
            for (int64_t i = i0, n = 0; i < i1; i += BAND, n++)
                round_band(s, (i - i0) * width, bands[n].parted, i, least(BAND, i1 - i), j0, j1 - j0, out, b.vectors);
        }
    }
    if (!finite_a)
        for (int64_t i = 0; i < a.vectors; i++)
            if (s->into_a[i] == 0.0) fill_nan(out + i * b.vectors, b.vectors, 1);
    if (!finite_b)
        for (int64_t j = 0; j < b.vectors; j++)
            if (s->into_b[j] == 0.0) fill_nan(out + j, a.vectors, b.vectors);
}

/* out = a b, for each of `batch` pairs; strides in elements; out is dense. 1 where memory lacks, else 0. */
EXPORT int32_t gradseal_products(const float *a, const float *b, float *out, int64_t batch, int64_t m, int64_t k,
                                 int64_t n, int64_t a_batch, int64_t a_row, int64_t a_step, int64_t b_batch,
                                 int64_t b_step, int64_t b_column) {
    if (batch == 0 || m == 0 || n == 0) return 0;
    if (k == 0) {
        memset(out, 0, sizeof(float) * (size_t)(batch * m * n));
        return 0;
    }
    int64_t depth = least(k, DEPTH), height = rounded_up(least(m, ROWS_HELD), ROWS);
    int64_t width = rounded_up(least(n, COLUMNS_HELD), COLUMNS), held = height * width;
    int64_t part = k > SAFE ? held : 0, sizes[] = {m, m, n, n + LANES, BAND * depth, width * depth, held, part, part};
    size_t total = sizeof(uint32_t) * (size_t)(m > n ? m : n) + 64;
    for (int i = 0; i < 9; i++) total += (sizeof(double) * (size_t)sizes[i] + 63) / 64 * 64;
    char *free_from = scratch(total);
    if (free_from == NULL) return 1;
    Space space;
    double **parts[] = {&space.into_a, &space.back_a, &space.into_b, &space.back_b, &space.a,
                        &space.b,      &space.sum,    &space.high,   &space.low};
    for (int i = 0; i < 9; i++) *parts[i] = (double *)taken(&free_from, sizeof(double) * (size_t)sizes[i]);
    space.bits = (uint32_t *)free_from;
    for (int64_t p = 0; p < batch; p++) {
        Side left = {a + p * a_batch, m, k, a_row, a_step}, right = {b + p * b_batch, n, k, b_column, b_step};
        one_matrix(left, right, out + p * m * n, &space);
    }
    return 0;
}
