/* Exact sums: `sums.py`, bit for bit. Format: docs/spec/arithmetic.md, section "Sums".
 *
 * An integer next to a number of at most 2^51 is had by adding ROUNDER: it stands in the lowest bits. These are
 * added as integers, modulo 2^64, without taking ROUNDER off each. */

#ifndef GRADSEAL_SUMS_H
#define GRADSEAL_SUMS_H

#include "series.h"

#define MAGNITUDE 0x7FFFFFFF
#define INFINITE 0x7F800000
#define ROUNDER_BITS 0x4338000000000000
/* So many terms leave no more than 51 bits to each. */
#define MANY 3

INLINE int32_t max32(int32_t a, int32_t b) { return a > b ? a : b; }

/* What is summed: the elements, their squares, or what is made of their deviations from a given mean. */
enum { PLAIN, SQUARE, AWAY, AWAY_SQUARE, AWAY_TIMES };

INLINE float term(int kind, float x, float mean, float factor) {
    float away = x - mean;
    switch (kind) {
    case SQUARE: return x * x;
    case AWAY: return away;
    case AWAY_SQUARE: return away * away;
    case AWAY_TIMES: return away * factor;
    default: return x;
    }
}

INLINE int32_t magnitude(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & MAGNITUDE;
}

/* The largest magnitude, as bits: these order as the numbers do. */
INLINE int32_t largest_of(int kind, const float *x, const float *factor, float mean, int64_t count) {
    int32_t found = 0;
    for (int64_t i = 0; i < count; i++)
        found = max32(found, magnitude(term(kind, x[i], mean, kind == AWAY_TIMES ? factor[i] : 0.0f)));
    return found;
}

/* e of the smallest 2^e above a magnitude, that of the least or the largest float32 where it is beyond. */
INLINE int64_t exponent_of(int32_t largest) {
    int32_t bounded = largest < 1 ? 1 : largest;
    bounded = bounded < INFINITE ? bounded : INFINITE - 1;
    float number;
    memcpy(&number, &bounded, sizeof number);
    return (int64_t)((uint64_t)bits_of((double)number) >> 52) - 1022;
}

INLINE double power_of_two(int64_t exponent) { return from_bits((int64_t)((uint64_t)(exponent + 1023) << 52)); }

/* b, the bits of each of so many integers whose sum has 53. */
INLINE int64_t bits_for(int64_t count) { return count < 2 ? 53 : 53 - (64 - __builtin_clzll((uint64_t)count - 1)); }

INLINE uint64_t shifted_bits(float x, double scale) { return (uint64_t)bits_of((double)x * scale + ROUNDER); }

INLINE uint64_t total_of(int kind, const float *x, const float *factor, float mean, int64_t count, double scale) {
    uint64_t total = 0;
    for (int64_t i = 0; i < count; i++)
        total += shifted_bits(term(kind, x[i], mean, kind == AWAY_TIMES ? factor[i] : 0.0f), scale);
    return total - (uint64_t)count * ROUNDER_BITS;
}

/* Where numbers beyond 2^51 are integers already, as float32 times a power of two are; also what is not finite. */
INLINE double nearest(double v) {
    double rounded = (v + ROUNDER) - ROUNDER;
    return fabs(v) > 0x1p51 ? v : rounded;
}

/* With one zero and one NaN. */
INLINE float settled(double value) {
    float result = (float)value + 0.0f;
    return result != result ? __builtin_nanf("") : result;
}

/* A sum of integers, or the mean of so many, in units of 2^−shift. */
INLINE float finished(double total, int64_t shift, int64_t count, int32_t divided) {
    double value = divided ? total / (double)count : total;
    return settled(value * power_of_two(-shift));
}

/* The sum along `outer` pieces of `inner` elements, `stride` apart, in x and in the factors. */
INLINE float sum_of(int kind, const float *x, const float *factor, float mean, int64_t outer, int64_t stride,
                    int64_t inner, int32_t divided) {
    int64_t count = outer * inner;
    int32_t largest = 0;
    for (int64_t i = 0; i < outer; i++)
        largest = max32(largest, largest_of(kind, x + i * stride, factor + i * stride, mean, inner));
    int64_t shift = bits_for(count) - exponent_of(largest);
    double scale = power_of_two(shift), few = 0.0;
    if (count >= MANY && largest < INFINITE) {
        uint64_t total = 0;
        for (int64_t i = 0; i < outer; i++)
            total += total_of(kind, x + i * stride, factor + i * stride, mean, inner, scale);
        return finished((double)(int64_t)total, shift, count, divided);
    }
    for (int64_t i = 0; i < outer * inner; i++) {
        int64_t place = i / inner * stride + i % inner;
        few += nearest((double)term(kind, x[place], mean, kind == AWAY_TIMES ? factor[place] : 0.0f) * scale);
    }
    return finished(few, shift, count, divided);
}

#endif
