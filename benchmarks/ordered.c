/* A product of matrices as a loop in a fixed order: one fused multiply-add an element, k from first to last.
   What exactness by order costs; compiled and called by exact.py. */

#include <math.h>
#include <stddef.h>

void ordered(const float *a, const float *b, float *out, size_t m, size_t n, size_t k)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = 0.0f;
            for (size_t l = 0; l < k; l++)
                sum = fmaf(a[i * k + l], b[j * k + l], sum);
            out[i * n + j] = sum;
        }
}
