/* Vectors of channels, written with the compilers' vector extension (gcc, clang).

   The generator defines before this file:
     T                float or double
     DOUBLE           1 for double, else 0
     CHANNELS         channels of each irreducible representation
     LANES            channels in one vector: a power of two that divides CHANNELS
     HARMONICS        (l_max + 1)^2
*/
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef T vec __attribute__((vector_size(LANES * sizeof(T))));
/* The same in memory: tensors are aligned to their elements only. */
typedef T uvec __attribute__((vector_size(LANES * sizeof(T)), aligned(sizeof(T)), may_alias));
#if DOUBLE
typedef int64_t ivec __attribute__((vector_size(LANES * sizeof(T))));
#else
typedef int32_t ivec __attribute__((vector_size(LANES * sizeof(T))));
#endif

/* Pairs are worked on EDGES at a time, one pair in a lane, where their geometry is contracted. */
#define EDGES 16
#define EDGE_LANES (64 / (int)sizeof(T))
typedef T lvec __attribute__((vector_size(64)));
typedef T ulvec __attribute__((vector_size(64), aligned(sizeof(T)), may_alias));

#define LOAD(p) ((vec)(*(const uvec *)(p)))
#define STORE(p, v) (*(uvec *)(p) = (uvec)(v))
#define ADD(p, v) (*(uvec *)(p) += (uvec)(v))
#define SPREAD(s) ((vec){0} + (T)(s))

static inline T total(vec v) {
    T out = 0;
    for (int i = 0; i < LANES; i++) out += v[i];
    return out;
}

/* exp by range reduction to |f| <= ln(2)/2 and its Taylor series: to the last digits of T. */
static inline vec exponential(vec x) {
#if DOUBLE
    const T magic = 6755399441055744.0, top = 700.0;
    const int shift = 52;
#else
    const T magic = 12582912.0f, top = 85.0f;
    const int shift = 23;
#endif
    const vec high = SPREAD(top), low = SPREAD(-top);
    ivec above = x > high, below = x < low;
    x = (vec)(((ivec)high & above) | ((ivec)low & below) | ((ivec)x & ~(above | below)));
    vec shifted = x * (T)1.4426950408889634074 + magic;
    ivec power = (ivec)shifted - (ivec)SPREAD(magic);
    vec n = shifted - magic;
#if DOUBLE
    vec f = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    vec p = SPREAD(1.6059043836821613e-10);
    p = p * f + 2.0876756987868099e-09;
    p = p * f + 2.5052108385441719e-08;
    p = p * f + 2.7557319223985891e-07;
    p = p * f + 2.7557319223985893e-06;
    p = p * f + 2.4801587301587302e-05;
    p = p * f + 1.9841269841269841e-04;
    p = p * f + 1.3888888888888889e-03;
    p = p * f + 8.3333333333333333e-03;
    p = p * f + 4.1666666666666667e-02;
    p = p * f + 1.6666666666666667e-01;
    p = p * f + 0.5;
#else
    vec f = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    vec p = SPREAD(1.9841270e-4f);
    p = p * f + 1.3888889e-3f;
    p = p * f + 8.3333333e-3f;
    p = p * f + 4.1666667e-2f;
    p = p * f + 1.6666667e-1f;
    p = p * f + 0.5f;
#endif
    p = p * f * f + f + 1;
    return (vec)((ivec)p + (power << shift));
}

/* silu with its first and second derivative. */
static inline vec silu(vec x) { return x / (1 + exponential(-x)); }

static inline vec silu_slope(vec x) {
    vec s = 1 / (1 + exponential(-x));
    return s * (1 + x * (1 - s));
}

static inline vec silu_curve(vec x) {
    vec s = 1 / (1 + exponential(-x));
    return s * (1 - s) * (2 + x * (1 - 2 * s));
}

/* `0 * x` keeps a NaN, which the range reduction could lose. */
static inline vec hyperbolic(vec x) { return 1 - 2 / (exponential(2 * x) + 1) + 0 * x; }
