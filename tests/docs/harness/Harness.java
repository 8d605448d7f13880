import java.util.Base64;
import java.util.Scanner;

final class Harness {
    public static void main(String[] arguments) throws Exception {
        Scanner lines = new Scanner(System.in, "UTF-8");
        while (lines.hasNextLine()) {
            String[] part = lines.nextLine().split("\t", -1);
            byte[] body = Base64.getDecoder().decode(part[4]);
            boolean genuine = Signatures.isGenuine(part[0], part[1], part[2], part[3], body);
            System.out.println(genuine ? "yes" : "no");
        }
    }
}
