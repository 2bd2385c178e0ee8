/* Convolutions of two dimensions and their gradients: `convolution.py`, bit for bit.
 *
 * An image is taken to fixed point once, into planes of zeros around it; with a stride s, into s · s planes, one
 * for each remainder of a position. Then every tap of the kernel reads consecutive numbers for consecutive
 * results, also from one row to the next, where the results between are thrown away; so patches are never
 * made. The gradient of the image is such a convolution of the result's gradient for each remainder of a
 * position; that of the kernel is the scalar products of the same planes. A sum is cut where a partial sum
 * could exceed 2^53: by Cauchy and Schwarz, at most the product of the norms.
 * Order here: shapes, planes, forward and the image's gradient, the kernel's gradient. */

#include "fixed_point.h"

#define DEPTH 288 /* taps that are multiplied at a time */
#define LINE 512  /* positions of a scalar product at a time */
#define DOTS 3    /* taps of a tile of scalar products, by ROWS filters */

typedef struct {
    int64_t batch, channels, size[2], filters, kernel[2], out[2], stride[2], padding[2], dilation[2], groups;
} Shape;

/* One of the two dimensions: how planes are cut from the padded image, and where each tap reads. */
typedef struct {
    int64_t size, stride, padding, length; /* of the image; between a plane's elements; before it; of a plane */
    int64_t planes, *starts;               /* how many remainders are read, and which */
    int64_t grids, out;                    /* results a, a + grids, … below `out` are those of grid a */
    int64_t taps, *grid, *plane, *shift;   /* of each tap: of which results; what it reads */
} Axis;

static void allot(Axis *axis, int64_t taps, char **from) {
    axis->taps = taps;
    int64_t **parts[] = {&axis->starts, &axis->grid, &axis->plane, &axis->shift};
    for (int i = 0; i < 4; i++) *parts[i] = (int64_t *)taken(from, sizeof(int64_t) * (size_t)taps);
}

static int64_t in_grid(const Axis *axis, int64_t grid) {
    return grid < axis->out ? (axis->out - grid + axis->grids - 1) / axis->grids : 0;
}

/* The image's positions i · stride + u · dilation − padding, for result i and tap u. */
static void reads_image(Axis *axis, const Shape *s, int side) {
    axis->size = s->size[side];
    axis->stride = s->stride[side];
    axis->padding = s->padding[side];
    axis->length = s->out[side] + (axis->taps - 1) * s->dilation[side] / axis->stride;
    axis->grids = 1;
    axis->out = s->out[side];
    axis->planes = 0;
    for (int64_t u = 0; u < axis->taps; u++) {
        int64_t at = u * s->dilation[side], start = at % axis->stride, known = 0;
        while (known < axis->planes && axis->starts[known] != start) known++;
        if (known == axis->planes) axis->starts[axis->planes++] = start;
        axis->grid[u] = 0;
        axis->plane[u] = known;
        axis->shift[u] = at / axis->stride;
    }
}

/* The gradient's positions (h + padding − u · dilation) / stride, for the image's position h and tap u. */
static void reads_gradient(Axis *axis, const Shape *s, int side) {
    int64_t stride = s->stride[side], lead = 0;
    axis->size = s->out[side];
    axis->stride = 1;
    axis->length = 1;
    axis->grids = stride;
    axis->out = s->size[side];
    axis->planes = 1;
    axis->starts[0] = 0;
    for (int64_t u = 0; u < axis->taps; u++) {
        int64_t at = s->padding[side] - u * s->dilation[side], grid = (stride - at % stride) % stride;
        axis->grid[u] = grid;
        axis->plane[u] = 0;
        axis->shift[u] = (grid + at) / stride;
        lead = -axis->shift[u] > lead ? -axis->shift[u] : lead;
    }
    axis->padding = lead;
    for (int64_t u = 0; u < axis->taps; u++) {
        axis->shift[u] += lead;
        int64_t end = axis->shift[u] + in_grid(axis, axis->grid[u]);
        axis->length = end > axis->length ? end : axis->length;
    }
}

/* How many numbers the planes of one channel take, and how many are read past the last. */
static int64_t plane_size(const Axis *axes) { return axes[0].length * axes[1].length; }

#define PAST (COLUMNS + LINE)

/* One image channel's elements into its planes, `apart` from each other; with `squares`, adds theirs there. */
static void fill_planes(const float *image, double into, const Axis *axes, double *planes, int64_t apart,
                        double *squares) {
    const Axis *down = &axes[0], *along = &axes[1];
    int64_t width = along->length, size = plane_size(axes);
    for (int64_t a = 0; a < down->planes; a++)
        for (int64_t b = 0; b < along->planes; b++, planes += apart) {
            int64_t first = along->padding - along->starts[b], step = along->stride;
            int64_t from = first > 0 ? (first + step - 1) / step : 0;
            int64_t to = (along->size + first + step - 1) / step;
            from = least(from, width);
            to = to < from ? from : least(to, width);
            for (int64_t i = 0; i < down->length; i++) {
                double *restrict row = planes + i * width;
                int64_t h = down->starts[a] + i * down->stride - down->padding;
                if (h < 0 || h >= down->size) {
                    memset(row, 0, sizeof(double) * (size_t)width);
                    continue;
                }
                for (int64_t j = 0; j < from; j++) row[j] = 0.0;
                for (int64_t j = to; j < width; j++) row[j] = 0.0;
                const float *restrict x = image + h * along->size - first;
                if (step == 1)
                    for (int64_t j = from; j < to; j++) row[j] = fixed(x[j], into);
                else
                    for (int64_t j = from; j < to; j++) row[j] = fixed(x[j * step], into);
                if (squares == NULL) continue;
                double *restrict own = squares + (a * along->planes + b) * size + i * width;
                for (int64_t j = from; j < to; j++) own[j] += row[j] * row[j];
            }
        }
}

static uint32_t largest_of(const float *x, int64_t count) {
    uint32_t most = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t own = magnitude(x + i);
        most = own > most ? own : most;
    }
    return most;
}

/* --- Forward, and the gradient of the image */

/* The kernel as a matrix: `rows` of each group times the source's channels and the taps. */
typedef struct {
    const float *w;
    int64_t rows, channels, of_group, of_row, of_channel, *taps; /* the strides in `w`; the kernel's sizes */
} Kernel;

/* Results that read with the same taps. */
typedef struct {
    int64_t taps, height, width, *offsets, *maps;
    int64_t at[2];
    double *filters, *norms;
} Grid;

typedef struct {
    Kernel kernel;
    Axis axes[2];
    int64_t groups, padded, plane, planes; /* rows rounded up; numbers in a plane; planes of a channel */
    Scale *scales;
    Grid *grids;
    double *image, *squares, *sum, *high, *low;
} Plan;

static int64_t width_of(const Grid *grid, const Plan *plan) {
    return grid->height && grid->width
               ? rounded_up((grid->height - 1) * plan->axes[1].length + grid->width, COLUMNS)
               : 0;
}

static void find_scales(Plan *p) {
    const Kernel *k = &p->kernel;
    int64_t places = k->taps[0] * k->taps[1];
    for (int64_t g = 0; g < p->groups; g++)
        for (int64_t r = 0; r < k->rows; r++) {
            uint32_t most = 0;
            for (int64_t c = 0; c < k->channels; c++) {
                uint32_t own = largest_of(k->w + g * k->of_group + r * k->of_row + c * k->of_channel, places);
                most = own > most ? own : most;
            }
            p->scales[g * k->rows + r] = scale_of(most);
        }
}

/* Packs one grid's taps for all groups, from `from` on; the largest sums of squares of each 32 taps. */
static void make_grid(Plan *p, Grid *grid, int64_t a, int64_t b, char **from) {
    const Kernel *k = &p->kernel;
    const Axis *down = &p->axes[0], *along = &p->axes[1];
    int64_t places = 0, columns = along->length;
    grid->at[0] = a;
    grid->at[1] = b;
    grid->height = in_grid(down, a);
    grid->width = in_grid(along, b);
    grid->maps = (int64_t *)taken(from, sizeof(int64_t) * (size_t)(down->taps * along->taps));
    for (int64_t u = 0; u < down->taps; u++)
        for (int64_t v = 0; v < along->taps; v++)
            if (down->grid[u] == a && along->grid[v] == b) places++;
    grid->taps = places * k->channels;
    grid->offsets = (int64_t *)taken(from, sizeof(int64_t) * (size_t)grid->taps);
    grid->norms = (double *)taken(from, sizeof(double) * (size_t)(grid->taps / SAFE + 1));
    grid->filters = (double *)taken(from, sizeof(double) * (size_t)(p->groups * p->padded * grid->taps));
    memset(grid->filters, 0, sizeof(double) * (size_t)(p->groups * p->padded * grid->taps));
    memset(grid->norms, 0, sizeof(double) * (size_t)(grid->taps / SAFE + 1));
    int64_t tap = 0;
    for (int64_t c = 0; c < k->channels; c++)
        for (int64_t u = 0; u < down->taps; u++)
            for (int64_t v = 0; v < along->taps; v++) {
                if (down->grid[u] != a || along->grid[v] != b) continue;
                int64_t plane = down->plane[u] * along->planes + along->plane[v];
                int64_t shift = down->shift[u] * columns + along->shift[v];
                grid->offsets[tap] = (plane * k->channels + c) * p->plane + shift;
                if (c == 0) grid->maps[tap] = plane * p->plane + shift;
                for (int64_t g = 0; g < p->groups; g++)
                    for (int64_t r = 0; r < k->rows; r++) {
                        Scale own = p->scales[g * k->rows + r];
                        const float *w = k->w + g * k->of_group + r * k->of_row + c * k->of_channel;
                        double *panel = grid->filters + (g * p->padded + r / ROWS * ROWS) * grid->taps;
                        if (own.finite) panel[tap * ROWS + r % ROWS] = fixed(w[u * along->taps + v], own.into);
                    }
                tap++;
            }
    for (int64_t row = 0; row < p->groups * p->padded; row += ROWS)
        for (int64_t t = 0; t < grid->taps; t += SAFE) {
            double own = squares(grid->filters + row * grid->taps + t * ROWS, least(SAFE, grid->taps - t), ROWS);
            grid->norms[t / SAFE] = own > grid->norms[t / SAFE] ? own : grid->norms[t / SAFE];
        }
}

static void one_tile(int64_t count, const double *a, const double *b, const int64_t *offsets, double *c,
                     int64_t row_length) {
    tile(count, a, b, offsets, c, NULL, NULL, row_length, REPLACE);
}

static void one_more_tile(int64_t count, const double *a, const double *b, const int64_t *offsets, double *c,
                          int64_t row_length) {
    tile(count, a, b, offsets, c, NULL, NULL, row_length, ADD);
}

/* Taps k0 to k1 of all results of a grid; `add` to what there is. */
static void multiply(const Plan *p, const Grid *grid, const double *filters, int64_t k0, int64_t k1, int add) {
    int64_t width = width_of(grid, p);
    for (int64_t k = k0; k < k1; k += DEPTH)
        for (int64_t j = 0; j < width; j += COLUMNS)
            for (int64_t i = 0; i < p->padded; i += ROWS)
                (add || k > k0 ? one_more_tile : one_tile)(
                    least(DEPTH, k1 - k), filters + i * grid->taps + k * ROWS, p->image + j, grid->offsets + k,
                    p->sum + i * width + j, width);
}

/* The largest sum of squares that one result of a grid meets; uses the space of the sums. */
static double largest_patch(const Plan *p, const Grid *grid) {
    int64_t count = width_of(grid, p), places = grid->taps / p->kernel.channels;
    double *restrict sum = p->sum, largest = 0.0;
    for (int64_t j = 0; j < count; j++) sum[j] = 0.0;
    for (int64_t t = 0; t < places; t++) {
        const double *restrict own = p->squares + grid->maps[t];
        for (int64_t j = 0; j < count; j++) sum[j] += own[j];
    }
    for (int64_t j = 0; j < count; j++) largest = sum[j] > largest ? sum[j] : largest;
    return largest;
}

/* The sums of a grid; whether there are also high and low parts. */
static int sums(const Plan *p, const Grid *grid, const double *filters) {
    int64_t width = width_of(grid, p), count = p->padded * width, k0 = 0, k = 0;
    if (grid->taps == 0) memset(p->sum, 0, sizeof(double) * (size_t)count);
    double patch = grid->taps > SAFE ? largest_patch(p, grid) : 0.0, norm = 0.0;
    int flushed = 0;
    for (int64_t i = 0; k < grid->taps; i++) {
        int64_t end = least(k + SAFE, grid->taps);
        double most = 0x1p48 * (double)(end - k0);
        norm += grid->norms[i];
        if (k > k0 && norm * (most < patch ? most : patch) > BOUND) {
            multiply(p, grid, filters, k0, k, 0);
            flush(p->sum, p->high, p->low, count, !flushed);
            flushed = 1;
            k0 = k;
            norm = grid->norms[i];
        }
        k = end;
    }
    if (k > k0) multiply(p, grid, filters, k0, k, 0);
    return flushed;
}

/* `count` results, `step` apart, from their sums, and from the high and low parts if there are any. */
static void round_line(const double *restrict sum, const double *restrict high, const double *restrict low,
                       double back, float *restrict out, int64_t count, int64_t step) {
    if (high == NULL && step == 1)
        for (int64_t j = 0; j < count; j++) out[j] = rounded(sum[j], back);
    else if (high == NULL)
        for (int64_t j = 0; j < count; j++) out[j * step] = rounded(sum[j], back);
    else
        for (int64_t j = 0; j < count; j += LANES) {
            float found[LANES];
            lanes scale = (lanes){0} + back;
            /* What is read past the end is some number, and not kept. */
            round_parts(sum + j, high + j, low + j, scale, found);
            for (int64_t l = j; l < count && l < j + LANES; l++) out[l * step] = found[l - j];
        }
}

static void one_grid(const Plan *p, const Grid *grid, int64_t group, double back, float *out) {
    int64_t width = width_of(grid, p), line = p->axes[1].out;
    if (width == 0) return;
    int parts = sums(p, grid, grid->filters + group * p->padded * grid->taps);
    for (int64_t r = 0; r < p->kernel.rows; r++, out += p->axes[0].out * line) {
        Scale own = p->scales[group * p->kernel.rows + r];
        for (int64_t i = 0; i < grid->height; i++) {
            int64_t at = r * width + i * p->axes[1].length, step = p->axes[1].grids;
            float *to = out + (grid->at[0] + i * p->axes[0].grids) * line + grid->at[1];
            if (own.finite)
                round_line(p->sum + at, parts ? p->high + at : NULL, p->low + at, own.back * back, to, grid->width,
                           step);
            else
                fill_nan(to, grid->width, step);
        }
    }
}

static void one_image(const Plan *p, const float *image, int64_t group, float *out) {
    int64_t channels = p->kernel.channels, size = p->axes[0].size * p->axes[1].size;
    Scale own = scale_of(largest_of(image, channels * size));
    if (!own.finite) {
        fill_nan(out, p->kernel.rows * p->axes[0].out * p->axes[1].out, 1);
        return;
    }
    memset(p->squares, 0, sizeof(double) * (size_t)(p->planes * p->plane + PAST));
    for (int64_t c = 0; c < channels; c++)
        fill_planes(image + c * size, own.into, p->axes, p->image + c * p->plane, channels * p->plane, p->squares);
    for (int64_t i = 0; i < p->axes[0].grids * p->axes[1].grids; i++)
        one_grid(p, &p->grids[i], group, own.back, out);
}

static int32_t filtered(const float *x, const Shape *s, Kernel kernel, void (*reads)(Axis *, const Shape *, int),
                        float *y, int64_t begin, int64_t end) {
    /* Held apart from the rest, whose size follows from it. */
    int64_t taps = kernel.taps[0] * kernel.taps[1];
    size_t lists = 8 * 64 + 4 * sizeof(int64_t) * (size_t)(kernel.taps[0] + kernel.taps[1]);
    char *shapes = malloc(lists);
    if (shapes == NULL) return 1;
    char *from = shapes;
    Plan p = {.kernel = kernel, .groups = s->groups, .padded = rounded_up(kernel.rows, ROWS)};
    for (int side = 0; side < 2; side++) {
        allot(&p.axes[side], kernel.taps[side], &from);
        reads(&p.axes[side], s, side);
    }
    p.plane = plane_size(p.axes);
    p.planes = p.axes[0].planes * p.axes[1].planes;
    int64_t grids = p.axes[0].grids * p.axes[1].grids, all = taps * kernel.channels;
    int64_t sum = p.padded * rounded_up(p.plane, COLUMNS);
    int64_t image = p.planes * kernel.channels * p.plane + PAST, map = p.planes * p.plane + PAST;
    size_t size = 64 * (size_t)(8 + 4 * grids) + sizeof(Grid) * (size_t)grids +
                  sizeof(Scale) * (size_t)(s->groups * kernel.rows) +
                  sizeof(double) * (size_t)(image + map + 3 * sum + s->groups * p.padded * all) +
                  sizeof(int64_t) * (size_t)(grids * (taps + 1) + 2 * all);
    char *space = scratch(size);
    if (space != NULL) {
        p.scales = (Scale *)taken(&space, sizeof(Scale) * (size_t)(s->groups * kernel.rows));
        p.grids = (Grid *)taken(&space, sizeof(Grid) * (size_t)grids);
        p.image = (double *)taken(&space, sizeof(double) * (size_t)image);
        p.squares = (double *)taken(&space, sizeof(double) * (size_t)map);
        double **parts[] = {&p.sum, &p.high, &p.low};
        for (int i = 0; i < 3; i++) *parts[i] = (double *)taken(&space, sizeof(double) * (size_t)sum);
        memset(p.image + image - PAST, 0, sizeof(double) * PAST);
        find_scales(&p);
        for (int64_t i = 0; i < grids; i++)
            make_grid(&p, &p.grids[i], i / p.axes[1].grids, i % p.axes[1].grids, &space);
        int64_t own = kernel.channels * p.axes[0].size * p.axes[1].size;
        int64_t result = kernel.rows * p.axes[0].out * p.axes[1].out;
        for (int64_t n = begin; n < end; n++)
            for (int64_t g = 0; g < s->groups; g++)
                one_image(&p, x + (n * s->groups + g) * own, g, y + (n * s->groups + g) * result);
    }
    free(shapes);
    return space == NULL;
}

/* y = x filtered by w, for the samples from `begin` to `end`; all dense. 1 where memory lacks, else 0. */
EXPORT int32_t gradseal_convolution(const float *x, const float *w, float *y, const int64_t *shape, int64_t begin,
                                    int64_t end) {
    Shape s;
    memcpy(&s, shape, sizeof s);
    int64_t rows = s.filters / s.groups, channels = s.channels / s.groups, places = s.kernel[0] * s.kernel[1];
    Kernel kernel = {w, rows, channels, rows * channels * places, channels * places, places, s.kernel};
    return filtered(x, &s, kernel, reads_image, y, begin, end);
}

/* The gradient of x, from that of y. */
EXPORT int32_t gradseal_convolution_input(const float *gradient, const float *w, float *x, const int64_t *shape,
                                          int64_t begin, int64_t end) {
    Shape s;
    memcpy(&s, shape, sizeof s);
    int64_t filters = s.filters / s.groups, rows = s.channels / s.groups, places = s.kernel[0] * s.kernel[1];
    Kernel kernel = {w, rows, filters, filters * rows * places, places, rows * places, s.kernel};
    return filtered(gradient, &s, kernel, reads_gradient, x, begin, end);
}

/* --- The gradient of the kernel */

/* For some samples, planes of a group's channels and the result's gradient for some filters, laid out alike:
 * with zeros where a plane has more columns than there are results. */
typedef struct {
    int64_t channels, filters, padded, taps, padded_taps; /* of a group; those asked for; rounded up; all taps */
    Axis axes[2];
    int64_t height, width, length, plane, image, results; /* of results; of a line of them; numbers of a sample */
    int64_t held, *offsets;                               /* how many samples are held */
    double *images, *gradients, *piece, *image_rows, *gradient_rows, *sum, *high, *low;
} Dots;

/* ROWS filters times DOTS taps over `count` positions of `samples` samples. */
INLINE void dots(int64_t samples, int64_t count, const double *a, int64_t a_row, int64_t a_sample, const double *b,
                 const int64_t *offsets, int64_t b_sample, double *c, int64_t row_length) {
    lanes sum[ROWS][DOTS] = {{{0}}};
    for (int64_t n = 0; n < samples; n++, a += a_sample, b += b_sample) {
        const double *b0 = b + offsets[0], *b1 = b + offsets[1], *b2 = b + offsets[2];
        for (int64_t p = 0; p < count; p += LANES) {
            lanes right[DOTS] = {*(const loose_lanes *)(b0 + p), *(const loose_lanes *)(b1 + p),
                                 *(const loose_lanes *)(b2 + p)};
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; i++) {
                lanes left = *(const loose_lanes *)(a + i * a_row + p);
#pragma GCC unroll 8
                for (int j = 0; j < DOTS; j++) sum[i][j] += left * right[j];
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 8
        for (int j = 0; j < DOTS; j++) {
            double total = 0.0;
#pragma GCC unroll 8
            for (int l = 0; l < LANES; l++) total += sum[i][j][l];
            c[i * row_length + j] += total;
        }
}

static void add_dots(const Dots *d, int64_t samples, int64_t length, const double *gradients, const double *images) {
    for (int64_t p = 0; p < length; p += LINE)
        for (int64_t i = 0; i < d->padded; i += ROWS)
            for (int64_t j = 0; j < d->padded_taps; j += DOTS)
                dots(samples, least(LINE, length - p), gradients + i * d->length + p, d->length, d->results,
                     images + p, d->offsets + j, d->image, d->sum + i * d->padded_taps + j, d->padded_taps);
}

INLINE double sum_of_squares(const double *x, int64_t count) {
    lanes sum = {0};
    int64_t i = 0;
    double total = 0.0;
    for (; i + LANES <= count; i += LANES) {
        lanes own = *(const loose_lanes *)(x + i);
        sum += own * own;
    }
    for (; i < count; i++) total += x[i] * x[i];
    for (int l = 0; l < LANES; l++) total += sum[l];
    return total;
}

/* Takes a sample's slices to fixed point; by row, the largest sum of squares of any channel or filter. */
static void hold(const Dots *d, int64_t at, const float *x, const float *gradient, const Scale *of_channels,
                 const Scale *of_filters) {
    int64_t size = d->axes[0].size * d->axes[1].size, planes = d->axes[0].planes * d->axes[1].planes;
    int64_t columns = d->axes[1].length, rows = d->axes[0].length;
    double *image = d->images + at * d->image, *most = d->image_rows + at * rows;
    memset(most, 0, sizeof(double) * (size_t)rows);
    for (int64_t c = 0; c < d->channels; c++) {
        /* Of what is not finite, the zeros of the start stay. */
        if (!of_channels[c].finite) continue;
        fill_planes(x + c * size, of_channels[c].into, d->axes, image + c * d->plane, d->channels * d->plane, NULL);
        for (int64_t q = 0; q < planes; q++)
            for (int64_t i = 0; i < rows; i++) {
                double own = sum_of_squares(image + (q * d->channels + c) * d->plane + i * columns, columns);
                most[i] = own > most[i] ? own : most[i];
            }
    }
    most = d->gradient_rows + at * d->height;
    memset(most, 0, sizeof(double) * (size_t)d->height);
    for (int64_t f = 0; f < d->filters; f++) {
        if (!of_filters[f].finite) continue;
        double *line = d->gradients + at * d->results + f * d->length;
        for (int64_t i = 0; i < d->height; i++) {
            double *restrict row = line + i * columns;
            const float *restrict own = gradient + (f * d->height + i) * d->width;
            for (int64_t j = 0; j < d->width; j++) row[j] = fixed(own[j], of_filters[f].into);
            double norm = sum_of_squares(row, d->width);
            most[i] = norm > most[i] ? norm : most[i];
        }
    }
}

/* What is summed: the squares since it was last flushed. */
typedef struct {
    double gradients, images;
    int flushed;
} Course;

static void flush_dots(const Dots *d, Course *course) {
    int64_t count = d->padded * d->padded_taps;
    flush(d->sum, d->high, d->low, count, !course->flushed);
    memset(d->sum, 0, sizeof(double) * (size_t)count);
    *course = (Course){.flushed = 1};
}

/* Positions from `begin` to `end` of one sample, and then a flush. */
static void add_piece(const Dots *d, int64_t at, int64_t begin, int64_t end, Course *course) {
    int64_t count = end - begin, length = rounded_up(count, LANES);
    for (int64_t f = 0; f < d->padded; f++) {
        double *piece = d->piece + f * d->length;
        memcpy(piece, d->gradients + at * d->results + f * d->length + begin, sizeof(double) * (size_t)count);
        for (int64_t p = count; p < length; p++) piece[p] = 0.0;
    }
    add_dots(d, 1, length, d->piece, d->images + at * d->image + begin);
    flush_dots(d, course);
}

/* A sample whose sums alone could exceed 2^53: as many rows at a time as can be, or 32 positions of one. */
static void add_rows(const Dots *d, int64_t at, Course *course) {
    int64_t reach = d->axes[0].length - d->height, columns = d->axes[1].length;
    const double *gradients = d->gradient_rows + at * d->height, *images = d->image_rows + at * d->axes[0].length;
    for (int64_t i = 0, next; i < d->height; i = next) {
        double a = 0.0, b = 0.0;
        for (int64_t r = i; r < i + reach; r++) b += images[r];
        for (next = i; next < d->height; next++) {
            a += gradients[next];
            b += images[next + reach];
            if (a * b > BOUND) break;
        }
        if (next > i) {
            add_piece(d, at, i * columns, next * columns, course);
            continue;
        }
        next = i + 1;
        for (int64_t p = i * columns; p < next * columns; p += SAFE)
            add_piece(d, at, p, least(p + SAFE, next * columns), course);
    }
}

static void add_samples(const Dots *d, int64_t samples, Course *course) {
    int64_t first = 0;
    for (int64_t n = 0; n <= samples; n++) {
        double a = 0.0, b = 0.0;
        int last = n == samples;
        for (int64_t i = 0; !last && i < d->height; i++) a += d->gradient_rows[n * d->height + i];
        for (int64_t i = 0; !last && i < d->axes[0].length; i++) b += d->image_rows[n * d->axes[0].length + i];
        int cut = (course->gradients + a) * (course->images + b) > BOUND;
        if (last || cut) {
            if (n > first)
                add_dots(d, n - first, d->length, d->gradients + first * d->results, d->images + first * d->image);
            first = n;
        }
        if (!last && cut) {
            flush_dots(d, course);
            if (a * b > BOUND) {
                add_rows(d, n, course);
                first = n + 1;
                continue;
            }
        }
        course->gradients += a;
        course->images += b;
    }
}

static void largest_slices(const float *x, int64_t batch, int64_t of_sample, int64_t size, int64_t begin, int64_t end,
                           Scale *found) {
    for (int64_t c = begin; c < end; c++) {
        uint32_t most = 0;
        for (int64_t n = 0; n < batch; n++) {
            uint32_t own = largest_of(x + n * of_sample + c * size, size);
            most = own > most ? own : most;
        }
        found[c - begin] = scale_of(most);
    }
}

/* The filters from `begin` to `end` of one group. */
static int one_group(const float *gradient, const float *x, float *w, const Shape *s, Dots *d, int64_t group,
                     int64_t begin, int64_t end) {
    int64_t size = s->size[0] * s->size[1], out = d->height * d->width, places = s->kernel[0] * s->kernel[1];
    d->filters = end - begin;
    d->padded = rounded_up(d->filters, ROWS);
    d->results = d->padded * d->length;
    int64_t count = d->padded * d->padded_taps, room = 1 << 15;
    d->held = least(s->batch, 1 + room / (d->image + d->results));
    int64_t image_rows = d->held * d->axes[0].length, gradient_rows = d->held * d->height;
    int64_t sizes[] = {d->held * d->image + PAST, d->held * d->results, d->results, image_rows, gradient_rows,
                       count, count, count};
    size_t total = sizeof(Scale) * (size_t)(d->channels + d->filters) + 128;
    for (int i = 0; i < 8; i++) total += sizeof(double) * (size_t)sizes[i] + 64;
    char *space = scratch(total);
    if (space == NULL) return 1;
    double **parts[] = {&d->images, &d->gradients, &d->piece, &d->image_rows, &d->gradient_rows,
                        &d->sum,    &d->high,      &d->low};
    for (int i = 0; i < 8; i++) *parts[i] = (double *)taken(&space, sizeof(double) * (size_t)sizes[i]);
    Scale *of_channels = (Scale *)taken(&space, sizeof(Scale) * (size_t)d->channels);
    Scale *of_filters = (Scale *)taken(&space, sizeof(Scale) * (size_t)d->filters);
    largest_slices(x, s->batch, s->channels * size, size, group * d->channels, (group + 1) * d->channels, of_channels);
    largest_slices(gradient, s->batch, s->filters * out, out, begin, end, of_filters);
    memset(d->images, 0, sizeof(double) * (size_t)sizes[0]);
    memset(d->gradients, 0, sizeof(double) * (size_t)sizes[1]);
    memset(d->sum, 0, sizeof(double) * (size_t)count);
    Course course = {0};
    for (int64_t n = 0; n < s->batch; n += d->held) {
        int64_t samples = least(d->held, s->batch - n);
        for (int64_t i = 0; i < samples; i++)
            hold(d, i, x + ((n + i) * s->channels + group * d->channels) * size,
                 gradient + ((n + i) * s->filters + begin) * out, of_channels, of_filters);
        add_samples(d, samples, &course);
    }
    for (int64_t f = 0; f < d->filters; f++)
        for (int64_t c = 0; c < d->channels; c++) {
            int64_t at = f * d->padded_taps + c * places;
            float *to = w + (f + begin) * d->taps + c * places;
            if (of_channels[c].finite && of_filters[f].finite)
                round_line(d->sum + at, course.flushed ? d->high + at : NULL, d->low + at,
                           of_channels[c].back * of_filters[f].back, to, places, 1);
            else
                fill_nan(to, places, 1);
        }
    return 0;
}

/* The gradient of w, from that of y, for the filters from `begin` to `end`. */
EXPORT int32_t gradseal_convolution_weight(const float *gradient, const float *x, float *w, const int64_t *shape,
                                           int64_t begin, int64_t end) {
    Shape s;
    memcpy(&s, shape, sizeof s);
    int64_t filters = s.filters / s.groups, places = s.kernel[0] * s.kernel[1], lacking = 0;
    Dots d = {.channels = s.channels / s.groups, .height = s.out[0], .width = s.out[1]};
    d.taps = d.channels * places;
    d.padded_taps = rounded_up(d.taps, DOTS);
    char *lists = malloc(9 * 64 + sizeof(int64_t) * (size_t)(4 * (s.kernel[0] + s.kernel[1]) + d.padded_taps));
    if (lists == NULL) return 1;
    char *from = lists;
    for (int side = 0; side < 2; side++) {
        allot(&d.axes[side], s.kernel[side], &from);
        reads_image(&d.axes[side], &s, side);
    }
    d.offsets = (int64_t *)from;
    d.plane = plane_size(d.axes);
    d.image = d.axes[0].planes * d.axes[1].planes * d.channels * d.plane;
    d.length = rounded_up(d.height * d.axes[1].length, LANES);
    for (int64_t t = 0; t < d.padded_taps; t++) {
        int64_t own = t < d.taps ? t : 0, u = own % places / s.kernel[1], v = own % s.kernel[1];
        int64_t plane = d.axes[0].plane[u] * d.axes[1].planes + d.axes[1].plane[v];
        d.offsets[t] = (plane * d.channels + own / places) * d.plane + d.axes[0].shift[u] * d.axes[1].length +
                       d.axes[1].shift[v];
    }
    for (int64_t f = begin; f < end && !lacking;) {
        int64_t group = f / filters, last = least(end, (group + 1) * filters);
        lacking = one_group(gradient, x, w, &s, &d, group, f, last);
        f = last;
    }
    free(lists);
    return (int32_t)lacking;
}
