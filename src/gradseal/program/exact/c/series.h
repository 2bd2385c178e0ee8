/* The parts of functions on float64, as `series.py` has them: the same steps in the same order, the same bits.
 *
 * One line each, without branches, so that a loop over an array becomes vector instructions. Not to be
 * compiled with products and sums contracted. Format: docs/spec/arithmetic.md, section "Functions". */

#ifndef GRADSEAL_SERIES_H
#define GRADSEAL_SERIES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Else GCC takes products with the bounds out of the selects, into branches that no vector can follow. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-pre")
#endif

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

#define LOG_2 0x1.62e42fefa39efp-1
#define LOG2_E 0x1.71547652b82fep+0
#define ROUNDER 0x1.8p+52
#define SQRT_HALF_BITS 0x3FE6A09E667F3BCD
#define NO_FRACTION (-0x10000000000000)
#define TAIL_CENTRE 6.0

/* Coefficients, lowest degree first: those of series.py, which a test compares. */
static const double EXPM1[] = {
    0x1.0000000000006p+0,  0x1.0000000000001p-1,  0x1.5555555550d52p-3,  0x1.5555555553d56p-5,
    0x1.11111123c9907p-7,  0x1.6c16c17890eb4p-10, 0x1.a019949f940cap-13, 0x1.a019b8f9792eep-16,
    0x1.72e1382ee1ff3p-19, 0x1.28919ccaf9211p-22,
};
static const double ATANH[] = {
    0x1.55555555553b8p-1, 0x1.9999999b86b38p-2, 0x1.2492462aae0ecp-2,
    0x1.c71fcd18711c4p-3, 0x1.7382d1330ebcfp-3, 0x1.546ad42a9a1a9p-3,
};
static const double ERF_NUMERATOR[] = {
    0x1.20dd7504295cfp+0,  0x1.c02ef96b24280p-3,  0x1.043d22016500bp-4,  0x1.a06913e1edb72p-8,
    0x1.766ebc9abdfbfp-11, 0x1.632100b262874p-15, 0x1.3133213e5d11cp-19, 0x1.325667918713cp-24,
    0x1.5498e806e885bp-30, 0x1.71c4cfd0d4bbdp-39,
};
static const double ERF_DENOMINATOR[] = {
    0x1.0000000000000p+0,  0x1.0df6f8f8816f7p-1,  0x1.0e77e261f0709p-3,  0x1.53b72524da27dp-6,
    0x1.288da7018973ep-9,  0x1.77a28afeb08c6p-13, 0x1.5b6058d341589p-17, 0x1.c4ed5bfef78c5p-22,
    0x1.7480c2cc69536p-27, 0x1.79f0f694ff0b9p-34,
};
static const double TAIL[] = {
    0x1.8e010d2b8a0fap-1,   -0x1.66eaa7d095dedp-1,  0x1.234fe3fd90d74p-1,   -0x1.a7d65772ba9dcp-2,
    0x1.1267d738c7e75p-2,   -0x1.38b069c7c6b74p-3,  0x1.33e77760d48d5p-4,   -0x1.fba9ddff88b69p-6,
    0x1.48a8363159119p-7,   -0x1.1762db109e81cp-9,  0x1.14397e30549a2p-15,  0x1.7bef2660d4f52p-13,
    -0x1.10fe96baad5e4p-14, 0x1.52deec926d8dbp-20,  0x1.f8103308a09d9p-18,  -0x1.913b41392fdc2p-20,
    -0x1.a23d18f862190p-21,
};

INLINE int64_t bits_of(double x) {
    int64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

INLINE double from_bits(int64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

INLINE double larger(double x, double bound) { return x > bound ? x : bound; }

INLINE double smaller(double x, double bound) { return x < bound ? x : bound; }

INLINE double between(double x, double low, double high) { return smaller(larger(x, low), high); }

#define HORNER(coefficients, x) horner(coefficients, sizeof(coefficients) / sizeof(double), x)

INLINE double horner(const double *coefficients, int count, double x) {
    double total = x * coefficients[count - 1];
#pragma GCC unroll 20
    for (int i = count - 2; i > 0; i--) total = (total + coefficients[i]) * x;
    return total + coefficients[0];
}

/* What exp(x) = 2^k (1 + q) is made of: q, and 2^k in `scale`. */
INLINE double exp_parts(double x, double *scale) {
    double shifted = x * LOG2_E + ROUNDER;
    double r = x - (shifted - ROUNDER) * LOG_2;
    *scale = from_bits((int64_t)((uint64_t)(bits_of(shifted) + 1023) << 52));
    return HORNER(EXPM1, r) * r;
}

INLINE double series_exp(double x) {
    double scale, q = exp_parts(x, &scale);
    return (q + 1.0) * scale;
}

INLINE double series_expm1(double x) {
    double scale, q = exp_parts(x, &scale);
    return q * scale + (scale - 1.0);
}

INLINE double series_log(double x) {
    int64_t bits = bits_of(x);
    int64_t k = (bits - SQRT_HALF_BITS) & NO_FRACTION;
    double m = from_bits(bits - k);
    double f = m - 1.0;
    double s = f / (m + 1.0);
    double z = s * s;
    double log_m = (HORNER(ATANH, z) * z + 2.0) * s;
    /* k · 2^−52 as a float64, by its digits under those of 1.5 · 2^52: no instruction converts 64 bits. */
    double exponent = from_bits(bits_of(ROUNDER) + (int64_t)((uint64_t)k >> 52 ^ 0x800) - 0x800) - ROUNDER;
    return exponent * LOG_2 + log_m;
}

INLINE double series_log1p(double x) {
    double u = x + 1.0;
    double lost = (x - (u - 1.0)) / u;
    return series_log(u) + lost;
}

INLINE double series_erf(double x) {
    double z = x * x;
    return HORNER(ERF_NUMERATOR, z) * x / HORNER(ERF_DENOMINATOR, z);
}

/* Φ(−a) = ratio · density, apart. */
INLINE double tail_ratio(double a) {
    double raised = a + TAIL_CENTRE;
    double y = (a - TAIL_CENTRE) / raised;
    return HORNER(TAIL, y) / raised;
}

INLINE double tail_density(double a) { return series_exp(a * a * -0.5); }

#endif
