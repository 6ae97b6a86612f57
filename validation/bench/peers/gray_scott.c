/* Gray-Scott on an n x n periodic grid, spacing 1, explicit Euler: the steps and their transpose, hand-fused.
 *
 *     u' = u + dt (Du Lap u - u v^2 + F (1 - u))          y = (u, v), states are [2][n][n]
 *     v' = v + dt (Dv Lap v + u v^2 - (F + k) v)
 *
 * and with the adjoint a = (p, q) of (u', v') and d = q - p:
 *
 *     p <- p + dt (Du Lap p + v^2 d - F p)
 *     q <- q + dt (Dv Lap q + 2 u v d - (F + k) q)
 *     dL/dDu += dt <Lap p, u>   dL/dDv += dt <Lap q, v>   dL/dF += dt (<p, 1 - u> - <q, v>)   dL/dk -= dt <q, v>
 *
 * One pass over the grid per step. Rows wrap by their index, the first and last column are peeled, so that the inner loop has
 * no branch. Sums run in `real` along a row and in double over rows.
 */
#include <stddef.h>

#ifndef REAL
#define REAL double
#endif
typedef REAL real;

typedef struct { real du, dv, f, fk, dt; } coefficients;          /* dt Du, dt Dv, dt F, dt (F + k), dt */

static coefficients scale(double Du, double Dv, double F, double k, double dt)
{
    coefficients c = {dt * Du, dt * Dv, dt * F, dt * (F + k), dt};
    return c;
}

static inline real lap(const real *above, const real *here, const real *below, size_t j, size_t left, size_t right)
{
    return above[j] + below[j] + here[left] + here[right] - 4 * here[j];
}

static void forward_row(size_t n, const real *restrict u_above, const real *restrict u, const real *restrict u_below,
                        const real *restrict v_above, const real *restrict v, const real *restrict v_below,
                        real *restrict u_out, real *restrict v_out, coefficients c)
{
#define CELL(j, left, right)                                                                 \
    {                                                                                        \
        real r = c.dt * u[j] * v[j] * v[j];                                                  \
        u_out[j] = u[j] + c.du * lap(u_above, u, u_below, j, left, right) - r + c.f * (1 - u[j]); \
        v_out[j] = v[j] + c.dv * lap(v_above, v, v_below, j, left, right) + r - c.fk * v[j]; \
    }
    CELL(0, n - 1, 1)
    for (size_t j = 1; j < n - 1; j++)
        CELL(j, j - 1, j + 1)
    CELL(n - 1, n - 2, 0)
#undef CELL
}

static void forward_step(size_t n, const real *y, real *out, coefficients c)
{
    const size_t s = n * n;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        const size_t here = i * n, above = (i ? i - 1 : n - 1) * n, below = (i + 1 < n ? i + 1 : 0) * n;
        forward_row(n, y + above, y + here, y + below, y + s + above, y + s + here, y + s + below, out + here, out + s + here, c);
    }
}

static void reverse_row(size_t n, const real *restrict u, const real *restrict v,
                        const real *restrict p_above, const real *restrict p, const real *restrict p_below,
                        const real *restrict q_above, const real *restrict q, const real *restrict q_below,
                        real *restrict p_out, real *restrict q_out, coefficients c, double sums[4])
{
    real s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#define CELL(j, left, right)                                                                 \
    {                                                                                        \
        real lp = lap(p_above, p, p_below, j, left, right), lq = lap(q_above, q, q_below, j, left, right); \
        real w = c.dt * v[j] * (q[j] - p[j]), qv = q[j] * v[j];                              \
        p_out[j] = p[j] + c.du * lp + v[j] * w - c.f * p[j];                                 \
        q_out[j] = q[j] + c.dv * lq + 2 * u[j] * w - c.fk * q[j];                            \
        s0 += lp * u[j]; s1 += lq * v[j]; s2 += p[j] * (1 - u[j]); s3 += qv;                 \
    }
    CELL(0, n - 1, 1)
    for (size_t j = 1; j < n - 1; j++)
        CELL(j, j - 1, j + 1)
    CELL(n - 1, n - 2, 0)
#undef CELL
    sums[0] = s0; sums[1] = s1; sums[2] = s2; sums[3] = s3;
}

static void reverse_step(size_t n, const real *y, const real *a, real *out, coefficients c, double sums[4])
{
    const size_t s = n * n;
    double g0 = 0, g1 = 0, g2 = 0, g3 = 0;
#pragma omp parallel for schedule(static) reduction(+ : g0, g1, g2, g3)
    for (size_t i = 0; i < n; i++) {
        const size_t here = i * n, above = (i ? i - 1 : n - 1) * n, below = (i + 1 < n ? i + 1 : 0) * n;
        double row[4];
        reverse_row(n, y + here, y + s + here, a + above, a + here, a + below, a + s + above, a + s + here, a + s + below,
                    out + here, out + s + here, c, row);
        g0 += row[0]; g1 += row[1]; g2 += row[2]; g3 += row[3];
    }
    sums[0] += g0; sums[1] += g1; sums[2] += g2; sums[3] += g3;
}

/* pair: [2][2][n][n], the start in pair[0]; the result is in pair[steps % 2] */
void forward(size_t n, size_t steps, real *pair, double Du, double Dv, double F, double k, double dt)
{
    const coefficients c = scale(Du, Dv, F, k, dt);
    const size_t state = 2 * n * n;
    for (size_t t = 0; t < steps; t++)
        forward_step(n, pair + (t % 2) * state, pair + ((t + 1) % 2) * state, c);
}

/* trajectory: [steps + 1][2][n][n], the start in trajectory[0] */
void forward_store(size_t n, size_t steps, real *trajectory, double Du, double Dv, double F, double k, double dt)
{
    const coefficients c = scale(Du, Dv, F, k, dt);
    const size_t state = 2 * n * n;
    for (size_t t = 0; t < steps; t++)
        forward_step(n, trajectory + t * state, trajectory + (t + 1) * state, c);
}

/* pair[0] holds dL/dy_N; dL/dy_0 is in pair[steps % 2]; g: dL/d(Du, Dv, F, k) */
void reverse(size_t n, size_t steps, const real *trajectory, real *pair, double *g, double Du, double Dv, double F, double k,
             double dt)
{
    const coefficients c = scale(Du, Dv, F, k, dt);
    const size_t state = 2 * n * n;
    double sums[4] = {0, 0, 0, 0};
    for (size_t i = 0; i < steps; i++)
        reverse_step(n, trajectory + (steps - 1 - i) * state, pair + (i % 2) * state, pair + ((i + 1) % 2) * state, c, sums);
    g[0] = dt * sums[0];
    g[1] = dt * sums[1];
    g[2] = dt * (sums[2] - sums[3]);
    g[3] = -dt * sums[3];
}
