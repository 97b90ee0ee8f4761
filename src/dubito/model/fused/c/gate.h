/* The non-linearity of a layer, its adjoint, its tangent and the adjoint of both.

   Even scalars pass through silu, odd ones through tanh; the other representations are multiplied by scalars
   that passed through silu. Constants give each function unit second moment for normal inputs.
*/
#define EACH_ATOM for (int64_t a = tile->start - t->a0; a < tile->stop - t->a0; a++)
#define EACH_VECTOR for (int c = 0; c < CHANNELS; c += LANES)

static inline int gate_at(const Target *target) { return (1 + target->gate) * CHANNELS; }

static void gate(const Task *t, const Layer *layer, const Tile *tile, const T *mapped, T *out) {
    const T norm = (T)t->net->silu_norm, odd = (T)t->net->tanh_norm;
    EACH_ATOM {
        const T *z = mapped + a * layer->mapped;
        for (int i = 0; i < layer->n_targets; i++) {
            const Target *target = &layer->targets[i];
            T *to = out + (a * layer->out + target->component) * CHANNELS;
            EACH_VECTOR {
                if (target->kind == 0) STORE(to + c, norm * silu(LOAD(z + c)));
                else if (target->kind == 1) STORE(to + c, odd * hyperbolic(LOAD(z + target->mapped + c)));
                else {
                    const vec open = norm * silu(LOAD(z + gate_at(target) + c));
                    for (int m = 0; m < target->dim; m++)
                        STORE(to + m * CHANNELS + c, open * LOAD(z + target->mapped + m * CHANNELS + c));
                }
            }
        }
    }
}

static void gate_adjoint(const Task *t, const Layer *layer, const Tile *tile, const T *mapped, const T *out_adjoint,
                         T *adjoint) {
    const T norm = (T)t->net->silu_norm, odd = (T)t->net->tanh_norm;
    EACH_ATOM {
        const T *z = mapped + a * layer->mapped;
        T *to = adjoint + a * layer->mapped;
        for (int i = 0; i < layer->n_targets; i++) {
            const Target *target = &layer->targets[i];
            const T *u = out_adjoint + (a * layer->out + target->component) * CHANNELS;
            EACH_VECTOR {
                if (target->kind == 0) STORE(to + c, norm * silu_slope(LOAD(z + c)) * LOAD(u + c));
                else if (target->kind == 1) {
                    const vec h = hyperbolic(LOAD(z + target->mapped + c));
                    STORE(to + target->mapped + c, odd * (1 - h * h) * LOAD(u + c));
                } else {
                    const vec scalar = LOAD(z + gate_at(target) + c), open = norm * silu(scalar);
                    vec sum = {0};
                    for (int m = 0; m < target->dim; m++) {
                        const vec um = LOAD(u + m * CHANNELS + c);
                        sum += um * LOAD(z + target->mapped + m * CHANNELS + c);
                        STORE(to + target->mapped + m * CHANNELS + c, um * open);
                    }
                    STORE(to + gate_at(target) + c, norm * silu_slope(scalar) * sum);
                }
            }
        }
    }
}

static void gate_tangent(const Task *t, const Layer *layer, const Tile *tile, const T *mapped, const T *tangent,
                         T *out) {
    const T norm = (T)t->net->silu_norm, odd = (T)t->net->tanh_norm;
    EACH_ATOM {
        const T *z = mapped + a * layer->mapped, *d = tangent + a * layer->mapped;
        for (int i = 0; i < layer->n_targets; i++) {
            const Target *target = &layer->targets[i];
            T *to = out + (a * layer->out + target->component) * CHANNELS;
            EACH_VECTOR {
                if (target->kind == 0) STORE(to + c, norm * silu_slope(LOAD(z + c)) * LOAD(d + c));
                else if (target->kind == 1) {
                    const vec h = hyperbolic(LOAD(z + target->mapped + c));
                    STORE(to + c, odd * (1 - h * h) * LOAD(d + target->mapped + c));
                } else {
                    const vec scalar = LOAD(z + gate_at(target) + c), open = norm * silu(scalar);
                    const vec opening = norm * silu_slope(scalar) * LOAD(d + gate_at(target) + c);
                    for (int m = 0; m < target->dim; m++) {
                        const int at = target->mapped + m * CHANNELS + c;
                        STORE(to + m * CHANNELS + c, open * LOAD(d + at) + opening * LOAD(z + at));
                    }
                }
            }
        }
    }
}

/* Adjoint of gate (lambda) and gate_tangent (mu) with respect to what was mapped. */
static void gate_curvature(const Task *t, const Layer *layer, const Tile *tile, const T *mapped, const T *tangent,
                           const T *lambda, const T *mu, T *adjoint) {
    const T norm = (T)t->net->silu_norm, odd = (T)t->net->tanh_norm;
    EACH_ATOM {
        const T *z = mapped + a * layer->mapped, *d = tangent + a * layer->mapped;
        T *to = adjoint + a * layer->mapped;
        for (int i = 0; i < layer->n_targets; i++) {
            const Target *target = &layer->targets[i];
            const int64_t component = (a * layer->out + target->component) * CHANNELS;
            const T *l = lambda + component, *u = mu + component;
            EACH_VECTOR {
                if (target->kind == 0) {
                    const vec s = LOAD(z + c);
                    STORE(to + c, norm * (silu_slope(s) * LOAD(l + c) + silu_curve(s) * LOAD(d + c) * LOAD(u + c)));
                } else if (target->kind == 1) {
                    const vec h = hyperbolic(LOAD(z + target->mapped + c)), slope = 1 - h * h;
                    const vec dz = LOAD(d + target->mapped + c);
                    STORE(to + target->mapped + c, odd * slope * (LOAD(l + c) - 2 * h * dz * LOAD(u + c)));
                } else {
                    const vec s = LOAD(z + gate_at(target) + c), ds = LOAD(d + gate_at(target) + c);
                    const vec open = norm * silu(s), slope = norm * silu_slope(s);
                    vec first = {0}, second = {0};
                    for (int m = 0; m < target->dim; m++) {
                        const int at = target->mapped + m * CHANNELS + c;
                        const vec lm = LOAD(l + m * CHANNELS + c), um = LOAD(u + m * CHANNELS + c);
                        first += lm * LOAD(z + at) + um * LOAD(d + at);
                        second += um * LOAD(z + at);
                        STORE(to + at, lm * open + um * slope * ds);
                    }
                    STORE(to + gate_at(target) + c, slope * first + norm * silu_curve(s) * ds * second);
                }
            }
        }
    }
}
