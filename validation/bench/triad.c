/* The STREAM triad: what the memory of this machine gives. Three arrays, 24 bytes per element are counted. */
#include <stddef.h>

void triad(size_t n, double *restrict a, const double *restrict b, const double *restrict c, double s)
{
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++)
        a[i] = b[i] + s * c[i];
}
