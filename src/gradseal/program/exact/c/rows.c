/* Softmax and normalisation without passes in between: `fused_softmax.py` and `fused_norms.py`, bit for bit. Each step on floats rounds once, as
 * the same step there does; what is a float64 there is one here. */

#include "functions.h"
#include "sums.h"

/* --- Softmax, along rows of `width` elements, those from start to below end */

/* The largest element, −0 below +0, NaN if there is one. As integers, since a maximum of floats is no vector. */
static float largest_in(const float *x, int64_t width) {
    int32_t found = INT32_MIN, top = 0;
    for (int64_t j = 0; j < width; j++) {
        int32_t bits;
        memcpy(&bits, x + j, sizeof bits);
        top = max32(top, bits & MAGNITUDE);
        found = max32(found, bits ^ (bits >> 31 & MAGNITUDE));
    }
    found ^= found >> 31 & MAGNITUDE;
    float largest;
    memcpy(&largest, &found, sizeof largest);
    return top > INFINITE ? __builtin_nanf("") : largest;
}

INLINE float exponential(float x) { return rounded(x, core_exp((double)x)); }

/* The sum of the exponentials of finite differences, the largest of which is 0: they lie in [0, 1], and 1 is one. */
INLINE float sum_of_exponentials(const float *restrict x, float *restrict y, float largest, int64_t width,
                                 int32_t kept) {
    int64_t shift = bits_for(width) - 1;
    double scale = power_of_two(shift);
    uint64_t total = 0;
    for (int64_t j = 0; j < width; j++) {
        float away = x[j] - largest, power = exponential(away);
        y[j] = kept ? power : away;
        total += shifted_bits(power, scale);
    }
    if (width >= MANY) return finished((double)(int64_t)(total - (uint64_t)width * ROUNDER_BITS), shift, width, 0);
    float few[MANY] = {0};
    for (int64_t j = 0; j < width && j < MANY; j++) few[j] = exponential(x[j] - largest);
    return sum_of(PLAIN, few, few, 0.0f, 1, 0, width, 0);
}

INLINE int32_t is_finite(float x) { return fabsf(x) < INFINITY; }

EXPORT void gradseal_softmax(const float *x, float *y, float *totals, float *largest, int64_t width, int64_t start,
                             int64_t end) {
    for (int64_t i = start; i < end; i++) {
        float *own = y + i * width, top = largest_in(x + i * width, width), total = __builtin_nanf("");
        if (is_finite(top)) {
            total = sum_of_exponentials(x + i * width, own, top, width, 1);
            for (int64_t j = 0; j < width; j++) own[j] = own[j] / total;
        } else {
            for (int64_t j = 0; j < width; j++) own[j] = total;
        }
        totals[i] = total;
        largest[i] = top;
    }
}

EXPORT void gradseal_log_softmax(const float *x, float *y, int64_t width, int64_t start, int64_t end) {
    for (int64_t i = start; i < end; i++) {
        float *own = y + i * width, top = largest_in(x + i * width, width);
        if (is_finite(top)) {
            float total = sum_of_exponentials(x + i * width, own, top, width, 0);
            float logarithm = rounded(total, core_log((double)total));
            for (int64_t j = 0; j < width; j++) own[j] = own[j] - logarithm;
        } else {
            for (int64_t j = 0; j < width; j++) own[j] = __builtin_nanf("");
        }
    }
}

EXPORT void gradseal_softmax_backward(const float *restrict grad, const float *restrict shares, float *restrict y,
                                      int64_t width, int64_t start, int64_t end) {
    for (int64_t i = start; i < end; i++) {
        const float *g = grad + i * width, *s = shares + i * width;
        float *own = y + i * width;
        for (int64_t j = 0; j < width; j++) own[j] = g[j] * s[j];
        float mean = sum_of(PLAIN, own, own, 0.0f, 1, 0, width, 0);
        for (int64_t j = 0; j < width; j++) own[j] = (g[j] - mean) * s[j];
    }
}

EXPORT void gradseal_log_softmax_backward(const float *restrict grad, const float *restrict logarithms,
                                          float *restrict y, int64_t width, int64_t start, int64_t end) {
    for (int64_t i = start; i < end; i++) {
        const float *g = grad + i * width, *l = logarithms + i * width;
        float *own = y + i * width;
        float total = sum_of(PLAIN, g, g, 0.0f, 1, 0, width, 0);
        for (int64_t j = 0; j < width; j++) own[j] = g[j] - exponential(l[j]) * total;
    }
}

/* --- Normalisation */

/* An array is pieces of `inner` elements. Piece i has the statistics at i / every % count, and the weights
 * likewise; along a piece they are one, or one for each element: `step` is 0 or 1. */
typedef struct {
    int64_t step, every, count;
} Places;

INLINE int64_t place_of(Places own, int64_t piece) { return piece / own.every % own.count; }

INLINE void normal_piece(const float *restrict x, float *restrict y, const double *restrict centre,
                         const double *restrict inverse, const float *restrict weight, const float *restrict bias,
                         int64_t inner, int64_t s, int64_t w) {
    for (int64_t j = 0; j < inner; j++) {
        double value = ((double)x[j] - centre[s * j]) * inverse[s * j];
        y[j] = (float)(value * (double)weight[w * j] + (double)bias[w * j]);
    }
}

EXPORT void gradseal_normal(const float *x, float *y, const double *centre, const double *inverse,
                            const float *weight, const float *bias, int64_t inner, int64_t stat_step,
                            int64_t stat_every, int64_t stats, int64_t weight_step, int64_t weight_every,
                            int64_t weights, int64_t start, int64_t end) {
    Places to_stats = {stat_step, stat_every, stats}, to_weights = {weight_step, weight_every, weights};
    for (int64_t i = start; i < end; i++) {
        int64_t s = place_of(to_stats, i), w = place_of(to_weights, i);
        const float *own = x + i * inner, *ww = weight + w, *bb = bias + w;
        const double *cc = centre + s, *rr = inverse + s;
        if (stat_step && weight_step)
            normal_piece(own, y + i * inner, cc, rr, ww, bb, inner, 1, 1);
        else if (stat_step)
            normal_piece(own, y + i * inner, cc, rr, ww, bb, inner, 1, 0);
        else if (weight_step)
            normal_piece(own, y + i * inner, cc, rr, ww, bb, inner, 0, 1);
        else
            normal_piece(own, y + i * inner, cc, rr, ww, bb, inner, 0, 0);
    }
}

/* centre, level, slope, inverse: one after the other for each place, as four arrays. */
typedef struct {
    const double *centre, *level, *slope, *inverse;
} Line;

INLINE void gradient_piece(const float *restrict grad, const float *restrict x, float *restrict y, Line own,
                           const float *restrict weight, int64_t inner, int64_t s, int64_t w) {
    for (int64_t j = 0; j < inner; j++) {
        double tilt = ((double)x[j] - own.centre[s * j]) * own.slope[s * j];
        double value = (double)grad[j] * (double)weight[w * j] - own.level[s * j];
        y[j] = (float)((value - tilt) * own.inverse[s * j]);
    }
}

EXPORT void gradseal_gradient(const float *grad, const float *x, float *y, const double *centre,
                              const double *level, const double *slope, const double *inverse,
                              const float *weight, int64_t inner, int64_t stat_step, int64_t stat_every,
                              int64_t stats, int64_t weight_step, int64_t weight_every, int64_t weights,
                              int64_t start, int64_t end) {
    Places to_stats = {stat_step, stat_every, stats}, to_weights = {weight_step, weight_every, weights};
    for (int64_t i = start; i < end; i++) {
        int64_t s = place_of(to_stats, i), at = i * inner;
        const float *ww = weight + place_of(to_weights, i);
        Line own = {centre + s, level + s, slope + s, inverse + s};
        if (stat_step && weight_step)
            gradient_piece(grad + at, x + at, y + at, own, ww, inner, 1, 1);
        else if (stat_step)
            gradient_piece(grad + at, x + at, y + at, own, ww, inner, 1, 0);
        else if (weight_step)
            gradient_piece(grad + at, x + at, y + at, own, ww, inner, 0, 1);
        else
            gradient_piece(grad + at, x + at, y + at, own, ww, inner, 0, 0);
    }
}

/* The gradient of a layer's input, and of each element's weight if there is room for that. */
EXPORT void gradseal_layer_backward(const float *restrict grad, const float *restrict x, const float *mean,
                                    const float *inverse, const float *restrict weight, float *restrict y,
                                    float *restrict products, int64_t width, int64_t start, int64_t end) {
    for (int64_t i = start; i < end; i++) {
        const float *g = grad + i * width, *v = x + i * width;
        float c = mean[i], r = inverse[i];
        float *own = y + i * width;
        if (products)
            for (int64_t j = 0; j < width; j++) products[i * width + j] = g[j] * ((v[j] - c) * r);
        for (int64_t j = 0; j < width; j++) own[j] = g[j] * weight[j];
        double level = (double)sum_of(PLAIN, own, own, 0.0f, 1, 0, width, 1);
        for (int64_t j = 0; j < width; j++) own[j] = (v[j] - c) * r * own[j];
        double slope = (double)sum_of(PLAIN, own, own, 0.0f, 1, 0, width, 1) * (double)r, to = (double)r;
        double centre = (double)c;
        Line line = {&centre, &level, &slope, &to};
        gradient_piece(g, v, own, line, weight, width, 0, 1);
    }
}
