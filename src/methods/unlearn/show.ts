/** A number as notes show it: three digits. */
export const show = (value: number): string => String(Number(value.toPrecision(3)));
