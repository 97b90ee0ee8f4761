/* Products of small matrices with the rows of atoms.

   A row is one component of one atom. Rows lie `row_stride` apart within an atom, atoms `atom_stride`;
   `atoms` lists the atoms meant. Matrices are packed (inputs, outputs), the outputs contiguous.
*/
typedef struct {
    const int32_t *atoms;
    int n_atoms, dim;
} Rows;

typedef struct {
    T *data;
    int64_t atom_stride, row_stride;
} Block;

static inline T *row_of(Block b, Rows rows, int row) {
    return b.data + rows.atoms[row / rows.dim] * b.atom_stride + (row % rows.dim) * b.row_stride;
}

#define PRODUCT(NAME, R, W)                                                                             \
    static inline void NAME(T *const *x, T *const *z, int inputs, const T *matrix, int outputs, int add) { \
        vec sum[R][W];                                                                                  \
        _Pragma("GCC unroll 8") for (int r = 0; r < R; r++)                                             \
            _Pragma("GCC unroll 2") for (int j = 0; j < W; j++)                                         \
                sum[r][j] = add ? LOAD(z[r] + j * LANES) : (vec){0};                                    \
        for (int k = 0; k < inputs; k++) {                                                              \
            vec m[W];                                                                                   \
            _Pragma("GCC unroll 2") for (int j = 0; j < W; j++) m[j] = LOAD(matrix + j * LANES);        \
            matrix += outputs;                                                                          \
            _Pragma("GCC unroll 8") for (int r = 0; r < R; r++)                                         \
                _Pragma("GCC unroll 2") for (int j = 0; j < W; j++) sum[r][j] += x[r][k] * m[j];        \
        }                                                                                               \
        _Pragma("GCC unroll 8") for (int r = 0; r < R; r++)                                             \
            _Pragma("GCC unroll 2") for (int j = 0; j < W; j++) STORE(z[r] + j * LANES, sum[r][j]);     \
    }
PRODUCT(product_8_2, 8, 2)
PRODUCT(product_8_1, 8, 1)
PRODUCT(product_4_2, 4, 2)
PRODUCT(product_4_1, 4, 1)
PRODUCT(product_1_2, 1, 2)
PRODUCT(product_1_1, 1, 1)

/* z (+)= x matrix; `add` 1: add to what is there. `outputs` is a multiple of LANES. */
static void multiply(Rows rows, Block x, int inputs, const T *matrix, int outputs, Block z, int add) {
    const int n = rows.n_atoms * rows.dim;
    for (int row = 0; row < n;) {
        const int left = n - row, take = left >= 8 ? 8 : left >= 4 ? 4 : 1;
        T *from[8], *to[8];
        for (int r = 0; r < take; r++) {
            from[r] = row_of(x, rows, row + r);
            to[r] = row_of(z, rows, row + r);
        }
        for (int column = 0; column < outputs;) {
            const int wide = outputs - column >= 2 * LANES;
            const T *m = matrix + column;
            if (take == 8) (wide ? product_8_2 : product_8_1)(from, to, inputs, m, outputs, add);
            else if (take == 4) (wide ? product_4_2 : product_4_1)(from, to, inputs, m, outputs, add);
            else (wide ? product_1_2 : product_1_1)(from, to, inputs, m, outputs, add);
            const int step = (wide ? 2 : 1) * LANES;
            for (int r = 0; r < take; r++) to[r] += step;
            column += step;
        }
        row += take;
    }
}

#define OUTER(NAME, R, W)                                                                               \
    static inline void NAME(Rows rows, Block x, int k, Block g, int column, T *matrix, int outputs) {   \
        vec sum[R][W];                                                                                  \
        _Pragma("GCC unroll 8") for (int r = 0; r < R; r++)                                             \
            _Pragma("GCC unroll 2") for (int j = 0; j < W; j++)                                         \
                sum[r][j] = LOAD(matrix + r * outputs + j * LANES);                                     \
        for (int a = 0; a < rows.n_atoms; a++) {                                                        \
            const T *from = x.data + rows.atoms[a] * x.atom_stride + k;                                 \
            const T *to = g.data + rows.atoms[a] * g.atom_stride + column;                              \
            for (int d = 0; d < rows.dim; d++, from += x.row_stride, to += g.row_stride) {              \
                vec m[W];                                                                               \
                _Pragma("GCC unroll 2") for (int j = 0; j < W; j++) m[j] = LOAD(to + j * LANES);        \
                _Pragma("GCC unroll 8") for (int r = 0; r < R; r++)                                     \
                    _Pragma("GCC unroll 2") for (int j = 0; j < W; j++) sum[r][j] += from[r] * m[j];    \
            }                                                                                           \
        }                                                                                               \
        _Pragma("GCC unroll 8") for (int r = 0; r < R; r++)                                             \
            _Pragma("GCC unroll 2") for (int j = 0; j < W; j++)                                         \
                STORE(matrix + r * outputs + j * LANES, sum[r][j]);                                     \
    }
OUTER(outer_8_2, 8, 2)
OUTER(outer_8_1, 8, 1)
OUTER(outer_1_2, 1, 2)
OUTER(outer_1_1, 1, 1)

/* matrix += x^T g, summed over rows: the gradient of a matrix. */
static void correlate(Rows rows, Block x, int inputs, Block g, int outputs, T *matrix) {
    for (int k = 0; k < inputs;) {
        const int take = inputs - k >= 8 ? 8 : 1;
        for (int column = 0; column < outputs;) {
            const int wide = outputs - column >= 2 * LANES;
            T *m = matrix + (int64_t)k * outputs + column;
            if (take == 8) (wide ? outer_8_2 : outer_8_1)(rows, x, k, g, column, m, outputs);
            else (wide ? outer_1_2 : outer_1_1)(rows, x, k, g, column, m, outputs);
            column += (wide ? 2 : 1) * LANES;
        }
        k += take;
    }
}
