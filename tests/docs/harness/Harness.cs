using System;

public static class Harness
{
    public static void Main()
    {
        string line;
        while ((line = Console.ReadLine()) != null)
        {
            var part = line.Split('\t');
            var body = Convert.FromBase64String(part[4]);
            var genuine = Signatures.IsGenuine(part[0], part[1], part[2], part[3], body);
            Console.WriteLine(genuine ? "yes" : "no");
        }
    }
}
